"""Volumes: folders of the host and volumes of the engine, as the docker executor takes them."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Any

from sked_compose.findings import Findings
from sked_compose.shape import VOLUME

_EXISTS = "the host's policy has to open it (docker: {volumes: …}), and it has to be there on each host that runs this"
_IS_PATH = re.compile(r"[./~]|[A-Za-z]:[\\/]")


class Volumes:
    """``volumes`` and ``flags`` of one service. ``named``: what the file declares; ``project``: what compose puts
    before the names of those; ``folder``: of the file, which paths begin from."""

    def __init__(self, named: Mapping[str, Any], project: str, folder: str, findings: Findings) -> None:
        self._named, self._project, self._folder, self._findings = named, project, folder, findings
        self.volumes: list[str] = []
        self.flags: list[str] = []

    def read(self, items: list[Any], path: str) -> None:
        for index, item in enumerate(items):
            at = f"{path}[{index}]"
            try:
                self._long(item, at) if isinstance(item, dict) else self._short(str(item), at)
            except ValueError as error:
                self._findings.refuse(at, str(error))

    def _short(self, text: str, path: str) -> None:
        parts = text.split(":")
        if len(parts) == 1:
            self.flags.append(f"--mount=type=volume,target={_target(text)}")
        elif len(parts) > 3 or not all(parts):
            raise ValueError(f'expected a volume such as "data:/var/lib/data:ro", got "{text[:60]}"')
        else:
            source = self._bind(parts[0], path) if _IS_PATH.match(parts[0]) else self._name(parts[0], path)
            options = [one for one in (parts[2].split(",") if len(parts) == 3 else ()) if one != "rw"]
            self.volumes.append(":".join([source, _target(parts[1]), *([",".join(options)] if options else [])]))

    def _long(self, item: dict[str, Any], path: str) -> None:
        said = self._findings.sound(item, VOLUME, path)
        target, kind = _target(str(said.get("target", ""))), said.get("type", "volume")
        known = {"bind": ("propagation", "create_host_path"), "volume": ("nocopy",), "tmpfs": ("size", "mode")}
        if kind not in known:
            raise ValueError(f'a volume of the type "{str(kind)[:20]}" is nothing that Sked has')
        more: dict[str, Any] = said.get(kind, {})
        for name in more:
            if name not in known[kind] or (name == "create_host_path" and more[name] not in (False, "false")):
                why = (
                    "a path that is not there is refused" if name == "create_host_path" else "Sked has nothing like it"
                )
                self._findings.lose(f"{path}.{kind}.{name}", why)
        if "consistency" in said:
            self._findings.lose(f"{path}.consistency", "it says something on macOS only")
        read_only = ["ro"] if said.get("read_only") else []
        if kind == "tmpfs":
            options = [f"tmpfs-{name}={_plain(more[name])}" for name in ("size", "mode") if name in more]
            self.flags.append(",".join(["--mount=type=tmpfs", f"target={target}", *options]))
            return
        source = str(said.get("source", ""))
        if kind == "volume" and not source:
            self.flags.append(",".join([f"--mount=type=volume,target={target}", *read_only]))
            return
        options = read_only + ([_plain(more["propagation"])] if more.get("propagation") else [])
        options += ["nocopy"] if more.get("nocopy") else []
        source = self._bind(source, path) if kind == "bind" else self._name(source, path)
        self.volumes.append(":".join([source, target, *([",".join(options)] if options else [])]))

    def _bind(self, source: str, path: str) -> str:
        if source.startswith("~"):
            source = os.path.expanduser(source)  # noqa: PTH111  a text, of the host that this is typed on
        if not source or source.startswith("~") or re.match(r"[A-Za-z]:[\\/]", source) or ":" in source:
            raise ValueError(f'expected a path, got "{source[:60]}"')
        whole = os.path.normpath(str(PurePosixPath(self._folder) / source))
        self._findings.note(path, f"{whole}: {_EXISTS}")
        return whole

    def _name(self, name: str, path: str) -> str:
        if name not in self._named:
            raise ValueError(f'there is no volume "{name[:60]}" under volumes')
        declared = self._named[name] if isinstance(self._named[name], Mapping) else {}
        found = declared.get("name") or (name if declared.get("external") else f"{self._project}_{name}")
        self._findings.note(path, f"volume {found}: each host has its own; placement keeps the task at its data")
        return str(found)


def declared(volumes: Mapping[str, Any], findings: Findings) -> None:
    """Say what of the file's own ``volumes`` has nothing in Sked."""
    for name, value in volumes.items():
        if value is not None and not isinstance(value, Mapping):
            findings.refuse(f"volumes.{name}", "expected a mapping")
            continue
        for field in value or ():
            if field not in ("name", "external") and not field.startswith("x-"):
                why = "the engine makes it as plain as it comes; make it by hand where it needs that"
                findings.lose(f"volumes.{name}.{field}", why)


def _target(text: str) -> str:
    if not text.startswith("/") or "," in text:
        raise ValueError(f'expected an absolute path in the container, got "{text[:60]}"')
    return text


def _plain(value: object) -> str:
    if not isinstance(value, (str, int)) or "," in str(value):
        raise ValueError(f"expected a text or a number, got {str(value)[:60]}")
    return str(value)
