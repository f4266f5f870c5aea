"""The cases of the corpus: those that stand as files, and the long lists that are made here from what Sked itself knows:
its own objects and their fields (B20, B21) and the options of ``docker run`` (E04 to E17)."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from hostile.make import EVERYWHERE, HERE, definition, manifest, record
from sked_core.client.looking.linting import KINDS
from sked_core.model.types import Task

DOCS = HERE.parent.parent / "docs"
WRONG: tuple[Any, ...] = (None, True, -1, 1.5, "\x1b[2J", [], {}, 2**70)


@dataclass(frozen=True, slots=True)
class Case:
    """``name`` is that of the file, ``data`` what is in it. ``key``: where it stands in a store; empty for a manifest."""

    name: str
    expect: str
    data: bytes
    key: str = ""
    file: Path | None = None

    @property
    def category(self) -> str:
        return self.name[0]

    @property
    def verdict(self) -> str:
        return self.expect.partition(":")[0]

    def pieces(self) -> list[str]:
        """What a message has to name."""
        return self.expect.partition(":")[2].split()

    def keys(self, host: str) -> list[str]:
        """The keys under which it is to be written, on a store with that host."""
        form = json.loads(self.key) if self.key.startswith('"') else self.key
        forms = EVERYWHERE if form == "{every}" else (form,)
        return [one.replace("{case}", self.name.lower()).replace("{host}", host) for one in forms]


def manifests() -> list[Case]:
    """Every case for the doors that take manifests, in order."""
    return [case for case in (*_files(), *_flags()) if not case.key]


def records() -> list[Case]:
    """Every case that is written into a store."""
    large = Case("B15-too-large", "isolate", b'{"a": "' + b"a" * 300_000 + b'"}', EVERYWHERE[5])
    return [case for case in (*_files(), large, *_missing(), *_wrong()) if case.key]


def everything() -> list[Case]:
    return manifests() + records()


def _files() -> Iterator[Case]:
    for file in sorted(HERE.glob("[A-K]/*")):
        if file.suffix == ".yml":
            data = file.read_bytes()
            yield Case(file.stem, _said(data.split(b"\n", 1)[0].decode()[2:])["expect"], data, file=file)
        elif file.suffix != ".expect":
            said = _said(file.with_name(file.name + ".expect").read_text())
            yield Case(file.stem, said["expect"], file.read_bytes(), said["key"], file)


def _said(text: str) -> dict[str, str]:
    return dict(line.split(": ", 1) for line in text.splitlines())


def _objects() -> Iterator[tuple[str, Any, dict[str, Any]]]:
    """By prefix: every kind of object that a store holds, with the example of docs/keys.md."""
    page = (DOCS / "keys.md").read_text()
    for prefix, kind in KINDS.items():
        if kind.of is None or not isinstance(kind.of, type) or not issubclass(kind.of, msgspec.Struct):
            continue
        if kind.of is Task:
            yield prefix, kind.of, record("x")
            continue
        section = re.search(rf"^## {kind.of.__name__}\n.*?```json\n(.*?)```", page, re.DOTALL | re.MULTILINE)
        if section:
            yield prefix, kind.of, json.loads(section[1])


def _records(number: str, prefix: str, field: str, value: Any, turn: int) -> Case:
    kind = prefix.strip("/").replace("/", "-").replace("_", "-")
    name = f"{number}-{kind}-{field.replace('_', '-')}-{turn}"
    form = next(form for form in EVERYWHERE if form.startswith(prefix))
    if isinstance(value, dict) and "task_definition" in value and "service" in value and field != "service":
        value = {**value, "service": name.lower()[:60].rstrip("-")}
    elif "name" in value and field != "name":
        value = {**value, "name": name.lower()}
    return Case(name, "isolate", json.dumps(value).encode(), form)


def _missing() -> Iterator[Case]:
    """B20: each field that has to be there is not."""
    for prefix, kind, example in _objects():
        for field in msgspec.structs.fields(kind):
            if field.required and field.encode_name in example:
                value = {name: one for name, one in example.items() if name != field.encode_name}
                yield _records("B20", prefix, field.encode_name, value, 0)


def _wrong() -> Iterator[Case]:
    """B21: each field has a value of each type that JSON knows."""
    for prefix, _, example in _objects():
        for field in example:
            for turn, value in enumerate(WRONG):
                yield _records("B21", prefix, field, {**example, field: value}, turn)


FLAGS: dict[str, tuple[str, ...]] = {
    "E04": ("--privileged", "--privileged=true", "--privileged=1", "--privileged true"),
    "E05": ("--pid=host", "--pid host", "--ipc=host", "--ipc host", "--uts=host", "--userns=host", "--cgroupns=host",
            "--pid=container:other", "--ipc=container:other", "--ipc=shareable"),
    "E06": ("--net=host", "--net host", "--network host", "--network=host", "--network=container:other"),
    "E07": ("--cap-add SYS_ADMIN", "--cap-add=ALL", "--cap-add=cap_sys_admin", "--cap-add=sys_ptrace", "--cap-add=NET_RAW"),
    "E08": ("--security-opt seccomp=unconfined", "--security-opt=apparmor=unconfined", "--security-opt=label:disable",
            "--security-opt=systempaths=unconfined", "--security-opt=no-new-privileges=false", "--security-opt=seccomp=/etc/x"),
    "E09": ("--device /dev/sda", "--device=/dev/kmsg:/dev/x:rwm", "--device-cgroup-rule=a *:* rwm", "--gpus all",
            "--device-read-bps=/dev/sda:1mb"),
    "E10": ("-v /:/host", "-v=/:/host", "-v/:/host", "--volume /:/host", "--volume=/:/host:ro", "--mount type=bind,src=/,dst=/h",
            "--mount=type=volume,volume-opt=type=none,volume-opt=o=bind,volume-opt=device=/,dst=/h", "--volumes-from other",
            "--mount=dst=/h,source=/,type=bind,readonly", "--volume-driver=local"),
    "E11": ("-v=/var/run/docker.sock:/s", "-v=/run/docker.sock:/s", "-v=/proc:/p", "-v=/sys:/s", "-v=/dev:/d", "-v=/etc:/e:ro",
            "-v=/var/lib/sked:/s", "-v=/root/.ssh:/s"),
    "E12": ("-v=/srv/../etc:/e", "-v=/srv/./../etc:/e", "-v=/srv//..//etc:/e", "--mount=type=bind,src=/srv/../etc,dst=/e"),
    "E13": ("-v=name:/v:exec", "--mount=type=volume,src=n,dst=/v,volume-driver=local", "--mount=type=cluster,src=n,dst=/v",
            "--mount=type=npipe,src=n,dst=/v", "--mount=type=image,src=n,dst=/v"),
    "E14": ("--name x", "--label sked.task=x", "-l=sked.host=x", "--rm", "-d", "-d=false", "--detach=false", "--restart=always",
            "--cidfile /etc/x", "--env-file /etc/shadow", "--env-file=/etc/shadow", "--label-file=/etc/shadow", "--log-driver=syslog",
            "--log-opt path=/etc/x", "--log-opt=syslog-address=udp://evil", "--runtime=evil", "--oom-score-adj -1000",
            "--oom-kill-disable", "--sysctl=kernel.core_pattern=|/x", "--init=false", "--pids-limit -1", "--memory 0",
            "--cgroup-parent=/", "--isolation=process", "--publish-all", "-P", "--pull=always", "--use-api-socket", "--entrypointt=x",
            "--link=other:x", "--annotation=a=b", "--ulimit=nofile=99999999999", "--storage-opt=size=1e9", "--platform=x"),
    "E15": ("-dit", "-itv/:/h", "-it", "-tdv=/:/h", "-xv=/:/h", "-Pv=/:/h"),
    "E16": ("--net host --privileged", "--net host\n--privileged", "--env A=1 --privileged", "-e A=1 -v /:/h", "--hostname=a --pid=host"),
    "E17": ("--", "-", "", " ", "-H tcp://evil", "-H=tcp://evil", "--host=tcp://evil", "--config=/x", "--context=evil", "--tls",
            "--debug", "-D", "--log-level=debug", "busybox", "--\x1b[2J", "--PRIVILEGED", "---privileged", "--privileged\x00",
            "\u2014privileged", "--net\u00a0host"),
}  # fmt: skip
"""Options by the number of their list. What sked-docker takes is for the policy of the host, what it refuses for apply:
which of the two a test finds out from the option itself."""


def _flags() -> Iterator[Case]:
    from sked_docker import flags

    for number, options in FLAGS.items():
        for turn, option in enumerate(options):
            mistaken = any(isinstance(found, flags.Mistake) for found in flags.read([option])) or option == ""
            expect = "reject:task_definitions[0].containers[0].executor.flags[0]" if mistaken else "reject:policy"
            task = definition(type="docker", executor={"image": "busybox:1", "flags": [option]})
            body = "".join(f"{name}: {json.dumps(value)}\n" for name, value in manifest(task=task).items())
            yield Case(f"{number}-flag-{turn:02}", expect, f"# expect: {expect}\n{body}".encode())
