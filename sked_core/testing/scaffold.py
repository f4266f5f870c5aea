"""A new plugin: a package that is complete and works, for its author to go on from.

The templates stand below ``sked_core/scaffold``, as the files of a package called sked-lantern: ``common`` has what all
kinds have, a folder for each kind the rest. A file that both have is that of ``common``, with the kind's in place of
its line ``@@``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from importlib.resources import files
from importlib.resources.abc import Traversable
from importlib.util import find_spec
from pathlib import Path

from sked_core import __version__
from sked_core.errors import Conflict, InvalidValue, NotFound
from sked_core.model.first_party import PACKAGES

KINDS = {
    "executor": "The executor",
    "scheduler": "The scheduler",
    "store": "The store",
    "health": "The health provider",
    "secrets": "The provider of secrets",
    "events": "The listener to events",
    "command": "The command",
}
"""What can be made, and how a sentence about one begins."""
MAX_NAME = 30
_NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")
_PLACES = re.compile("sked_lantern|sked-lantern|SKED_LANTERN|SKED_CORE_VERSION|KIND_TITLE|Lantern|lantern")


def short_name(name: str) -> str:
    """``lantern`` of ``sked-lantern`` or ``lantern``. Raises InvalidValue where no package can be called so."""
    short = name.removeprefix("sked-").removeprefix("sked_")
    if not _NAME.fullmatch(short) or len(short) > MAX_NAME:
        tame = re.sub(r"[^a-z0-9]+", "-", short.lower()).strip("-0123456789")[:MAX_NAME].rstrip("-")
        raise InvalidValue(
            f"{name!r:.80} can't be the name of a plugin: small letters, digits and single hyphens, a letter first, "
            f"{MAX_NAME} at most",
            hint=f"such as {tame or 'lantern'}",
        )
    return short


def create(name: str, kind: str, into: Path, taken: Mapping[str, str]) -> Path:
    """Write a new package into a new folder ``sked-NAME`` below ``into``, which is returned. ``taken``: names that
    can't be offered, each with the reason. Raises InvalidValue for a name that can't be, Conflict for one that is
    taken, also by a folder, NotFound where there is no ``into``. Nothing is written then."""
    short = short_name(name)
    owner = f"sked-{short} is a package of Sked's own" if short in PACKAGES else taken.get(short, "") or _here(short)
    if owner:
        raise Conflict(f"{short} is taken: {owner}", hint="choose another name")
    target = into / f"sked-{short}"
    texts = rendered(short, kind)
    try:
        target.mkdir()
    except FileExistsError:
        raise Conflict(f"{target} is there already", hint="choose another name, or another folder: --into") from None
    except (FileNotFoundError, NotADirectoryError):
        raise NotFound(f"there is no folder {into}") from None
    for path, text in texts.items():
        file = target / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
        if text.startswith("#!"):
            file.chmod(file.stat().st_mode | 0o111)
    return target


def _here(short: str) -> str:
    """Why the package can't be installed beside what is: a package or a module of its name."""
    with suppress(PackageNotFoundError):
        return f"sked-{short} {version(f'sked-{short}')} is installed here"
    module = f"sked_{short.replace('-', '_')}"
    return f"there is a module {module} here" if find_spec(module) else ""


def rendered(short: str, kind: str) -> dict[str, str]:
    """The files of the package ``sked-SHORT``: their texts by their paths in it. Raises KeyError for no such kind."""
    words = {
        "sked_lantern": f"sked_{short}".replace("-", "_"),
        "sked-lantern": f"sked-{short}",
        "SKED_LANTERN": f"SKED_{short}".replace("-", "_").upper(),
        "SKED_CORE_VERSION": __version__,
        "KIND_TITLE": KINDS[kind],
        "Lantern": "".join(part.capitalize() for part in short.split("-")),
        "lantern": short,
    }
    root = files("sked_core") / "scaffold"
    common, own = dict(_texts(root / "common")), dict(_texts(root / kind))
    both = {path: text.replace("@@\n", own.pop(path, "")) for path, text in common.items()} | own

    def named(text: str) -> str:
        return _PLACES.sub(lambda match: words[match[0]], text)

    return {named(path): named(text) for path, text in sorted(both.items())}


def _texts(folder: Traversable, below: str = "") -> Iterator[tuple[str, str]]:
    """The templates below ``folder`` by the paths of what they become: ``dot-`` stands for a dot, which would mean
    something where the templates are themselves."""
    for one in folder.iterdir():
        path = below + re.sub("^dot-", ".", one.name.removesuffix(".in"))
        if one.is_dir():
            yield from _texts(one, path + "/")
        else:
            yield path, one.read_text(encoding="utf-8")
