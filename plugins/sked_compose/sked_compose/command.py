"""``sked compose import``: read a compose file, print manifests, and say what they lack."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import click
import yaml

from sked_compose.convert import Conversion, Options
from sked_compose.variables import Filling, fill_all, read_env_file
from sked_core.plugin import MAX_YAML_BYTES, Document, InvalidManifest, InvalidValue, Problem, plain, read_yaml

MAX_ENV_FILE = 1024 * 1024
_BOOLEANS = frozenset(("disable", "init", "oom_kill_disable", "privileged", "read_only", "stdin_open", "tty"))
_PLAIN = re.compile(r"[A-Za-z/][^\0]*")
_EPILOG = """\b
Examples:
  sked compose import docker-compose.yml > shop.yml     then: sked plan -f shop.yml
  docker compose config | sked compose import -         with extends and include resolved
  sked compose import docker-compose.yml --strict       exit code 3 where anything is lost
"""


@click.group("compose")
def compose() -> None:
    """Come over from docker compose."""


@compose.command("import", epilog=_EPILOG)
@click.argument("file", type=click.Path(dir_okay=False, allow_dash=True))
@click.option(
    "-o", "--output", metavar="OUT", type=click.Path(dir_okay=False), help="A file to write to instead of stdout."
)
@click.option("--cluster", metavar="NAME", default="", help="The cluster's name. Default: the project's.")
@click.option("--task-version", metavar="N", type=click.IntRange(1), default=1, show_default=True,
              help="Of the task definitions: one that is applied never changes.")  # fmt: skip
@click.option("--provide-ports", is_flag=True, help="Have each host pick the ports of tasks, also where the file does.")
@click.option("--profile", "profiles", metavar="NAME", multiple=True, help="Take services of this profile; repeatable.")
@click.option("--env-file", metavar="FILE", help="Variables for ${NAME}. Default: .env beside FILE.")
@click.option("--strict", is_flag=True, help="Print nothing and end with 3 if anything can't be carried over.")
def import_(
    file: str,
    output: str | None,
    cluster: str,
    task_version: int,
    provide_ports: bool,
    profiles: tuple[str, ...],
    env_file: str | None,
    strict: bool,
) -> None:
    """Turn a docker compose file into Sked's manifests.

    What they can't say is named on stderr, line by line. Nothing is applied and nothing stored. FILE may be - .
    """
    name = "<stdin>" if file == "-" else file
    if output is not None and file != "-" and Path(output).exists() and Path(output).samefile(file):
        raise click.UsageError(f"{output} is the compose file itself: it would be lost")
    source = read_yaml(_content(file), name, expected="with services", merge=True)
    if source.problems:
        raise InvalidManifest(source.problems)
    if len(source.documents) != 1:
        raise InvalidManifest([Problem("", f"expected one document, got {len(source.documents)}", name)])
    folder = Path.cwd() if file == "-" else Path(file).absolute().parent
    options = Options(
        project=os.environ.get("COMPOSE_PROJECT_NAME", ""),
        cluster=cluster,
        folder=str(folder),
        version=task_version,
        profiles=frozenset(profiles),
        provide_ports=provide_ports,
    )
    found = _Import(source.documents[0], folder, _variables(folder, env_file))
    whole = found.convert(options)
    if strict and found.lost:
        raise InvalidManifest(found.lost)
    for problem in found.lost:
        click.echo(plain(str(problem)), err=True)
    for problem in found.notes:
        click.echo(plain(str(problem).replace("warning: ", "note: ", 1)), err=True)
    text = f"# Made of {plain(name)} by sked compose import.\n{_yaml(whole)}"
    if output is None:
        click.echo(text, nl=False)
    else:
        Path(output).write_text(text)


class _Import:
    """One file on its way to a manifest. ``lost`` and ``notes``: what to tell about it."""

    def __init__(self, document: Document, folder: Path, variables: Mapping[str, str]) -> None:
        self._document, self._folder, self._variables = document, folder, variables
        self._problems: list[Problem] = []
        self._unset: dict[str, Problem] = {}
        self._path = ""
        self._filling = Filling(variables, lambda name: self._miss(name, self._path))
        self._outside: list[Problem] = []
        self.lost: list[Problem] = []
        self.notes: list[Problem] = []

    def convert(self, options: Options) -> dict[str, Any]:
        """The manifest. Raises InvalidManifest with all that is wrong with the file."""
        data = fill_all(self._document.data, "", self._fill)
        filled = Document(self._document.file, data, self._document.keys, self._document.values)
        conversion = Conversion(filled, options, self._variables, self._env_file)
        whole = conversion.run()
        found = conversion.findings
        if self._problems or found.wrong:
            raise InvalidManifest([*self._problems, *found.wrong])
        self.lost, self.notes = list(found.lost), [*self._unset.values(), *self._outside, *found.notes]
        return whole

    def _fill(self, path: str, text: str) -> str | bool:
        self._path = path
        try:
            found = self._filling.fill(text)
        except ValueError as error:
            self._refuse(path, str(error))
            return text
        if found != text and found in ("true", "false") and path.rpartition(".")[2] in _BOOLEANS:
            return found == "true"
        return found

    def _env_file(self, path: str, needed: bool, at: str) -> Mapping[str, str]:
        try:
            found = _read_env_file(self._folder / path, self._variables, lambda name: self._miss(name, at))
            if not (self._folder / path).resolve().is_relative_to(self._folder.resolve()):
                message = "it is outside of the project's folder: all that it says is in the manifest now"
                place = self._document.place(at)
                self._outside.append(Problem(at, message, self._document.file, *place, warning=True))
            return found
        except FileNotFoundError:
            if needed:
                self._refuse(at, f"there is no file {path[:200]}")
        except OSError as error:
            self._refuse(at, f"{path[:200]}: {error.strerror}")
        except ValueError as error:
            self._refuse(at, f"{path[:200]}: {error}")
        return {}

    def _miss(self, name: str, path: str) -> None:
        message = f"the variable {name} is not set: taken for empty"
        told = Problem(path, message, self._document.file, *self._document.place(path), warning=True)
        self._unset.setdefault(name, told)

    def _refuse(self, path: str, message: str) -> None:
        self._problems.append(Problem(path, message, self._document.file, *self._document.place(path)))


def _content(file: str) -> bytes:
    if file == "-":
        return sys.stdin.buffer.read(MAX_YAML_BYTES + 1)
    with Path(file).open("rb") as opened:
        return opened.read(MAX_YAML_BYTES + 1)


def _variables(folder: Path, env_file: str | None) -> dict[str, str]:
    """Those of the shell, and below them those of a file. Raises InvalidValue."""
    path = folder / ".env" if env_file is None else Path(env_file)
    try:
        return {**_read_env_file(path, os.environ, lambda _: None), **os.environ}
    except FileNotFoundError:
        if env_file is None:
            return dict(os.environ)
        raise InvalidValue(f"there is no file {env_file}") from None
    except ValueError as error:
        raise InvalidValue(f"{path}: {error}") from None


def _read_env_file(path: Path, variables: Mapping[str, str], unset: Callable[[str], None]) -> dict[str, str]:
    if path.exists() and not path.is_file():
        raise ValueError("it is no file")
    with path.open("rb") as opened:
        content = opened.read(MAX_ENV_FILE + 1)
    if len(content) > MAX_ENV_FILE:
        raise ValueError(f"it is larger than {MAX_ENV_FILE} bytes")
    return read_env_file(content.decode("utf-8-sig"), variables, unset)


class _Dumper(yaml.SafeDumper):
    """Puts all text into quotes that some reader of YAML may take for something else, such as 1e3."""

    def ignore_aliases(self, data: object) -> bool:
        return True


def _quoted(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=None if _PLAIN.fullmatch(text) else '"')


_Dumper.add_representer(str, _quoted)


def _yaml(whole: dict[str, Any]) -> str:
    text: bytes = yaml.dump(whole, Dumper=_Dumper, sort_keys=False, encoding="ascii", width=120)
    return text.decode()
