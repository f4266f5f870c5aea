"""Whether what is installed and configured fits together."""

from __future__ import annotations

import stat
from collections.abc import Iterator
from pathlib import Path

from sked_core.client.doctor.exam import Check, Exam, Fault
from sked_core.client.settings import SYSTEM_FILE
from sked_core.errors import InvalidManifest, InvalidValue
from sked_core.runtime.plugins.loading import BROKEN, OTHER_API
from sked_core.runtime.plugins.requirements import mismatch, requires

SECRETS = ("CONSUL_HTTP_TOKEN_FILE", "CONSUL_CLIENT_KEY", "ETCDCTL_KEY", "SKED_API_TOKEN_FILE")
"""Variables that name a file which only its owner should read."""
SECRET_SETTINGS = ("tokens", "tls_key")
"""Settings that do."""


def config(exam: Exam) -> Iterator[Fault]:
    for problem in exam.config_fault.problems if exam.config_fault else ():
        yield Fault(str(problem), f"correct the file; {SYSTEM_FILE} and --config are read, see docs/commands.md")


def plugins(exam: Exam) -> Iterator[Fault]:
    for row in exam.plugins().rows():
        if row.state == BROKEN:
            what = f"plugin {row.name} ({row.package}) is broken: {row.error}"
            yield Fault(what, f"install it again, or remove it:  pip install --force-reinstall {row.package}")
        elif row.state == OTHER_API:
            what = f"plugin {row.name} ({row.package}) is not used: {row.error.partition(': ')[0]}"
            yield Fault(what, f"upgrade, or remove it:  {row.error.partition(': ')[2]}")
    for line in exam.plugins().lacking():
        yield Fault(line, "install or repair it, or require it no more: see docs/installing.md")
    for line in (one for one in exam.plugins().unmatched() if one.endswith("?")):  # others may be for other hosts
        yield Fault(line, "correct the rule: as it is, it concerns nothing on this host")
    for package, line in exam.plugins().problems():
        yield Fault(f"{package}: {line}", "correct it, then restart this host's agent and scheduler")


def versions(exam: Exam) -> Iterator[Fault]:
    for row in exam.plugins().rows():
        if found := mismatch(row.package, requires(row.package)):
            yield Fault(found, f"upgrade both together:  pip install --upgrade sked-core {row.package}")


def secrets(exam: Exam) -> Iterator[Fault]:
    named = {name: exam.env[name] for name in SECRETS if exam.env.get(name)}
    if exam.settings is not None:
        file = exam.settings.file
        named |= {name: str(path) for name in SECRET_SETTINGS if (path := getattr(file, name, None))}
    for name, text in named.items():
        path = Path(text)
        try:
            mode = stat.S_IMODE(path.stat().st_mode)
        except OSError as error:
            yield Fault(f"{name}={text} can't be read: {error.strerror}", "correct the path, or its rights")
            continue
        if mode & 0o077:
            yield Fault(f"{path} ({name}) may be used by others than its owner (mode {mode:04o})", f"chmod 600 {path}")


def listening(exam: Exam) -> Iterator[Fault]:
    file = exam.given.file
    if not file.listen or any(secrets(exam)):  # which may be the same files
        return
    from sked_core.serving.listening import Listen, checked

    tokens, certificate, key = (Path(one) if one else None for one in (file.tokens, file.tls_cert, file.tls_key))
    try:
        checked(Listen(file.listen, tokens, certificate, key))
    except (InvalidValue, InvalidManifest) as error:
        yield Fault(f"an agent won't start with listen = {file.listen}: {error}", error.hint or "correct it there")


CHECKS = (
    Check("config", "a configuration file that can't be read, with unknown keys or wrong values", config),
    Check(
        "plugins",
        "plugins that are broken, claim another's name, are for another plugin API, or say what is wrong with how they "
        "are set up; required ones that lack",
        plugins,
    ),
    Check("versions", "plugins that are made for another version of Sked", versions),
    Check("secrets", "files with tokens and keys that others may read, or that are not there", secrets),
    Check("listening", "an address to serve on without the tokens and TLS that it takes", listening),
)
