"""The beginning of sked.pyz: unpacks what is in it, once for each user and build, and runs ``sked`` from there.

Compiled modules can't be imported out of an archive. They go into ``$XDG_CACHE_HOME/sked/`` (``~/.cache/sked/``), in a
folder that is named by what is in the archive, made whole beside it and then renamed, so that two processes that start
at once, or one that is killed, leave nothing half done. Where that folder can't be written, or belongs to somebody
else, a temporary one serves for this process alone. Nothing but Python's own library may be imported here.
"""

import atexit
import json
import os
import platform
import shutil
import site
import sys
import tempfile
import zipfile
from pathlib import Path

ARCHIVE = Path(sys.argv[0]).resolve()
INSIDE = "site-packages/"


def main() -> None:
    with zipfile.ZipFile(ARCHIVE) as archive:
        made = json.loads(archive.read("made.json"))
        here = "{}.{}".format(*sys.version_info), sys.platform, platform.machine()
        if here != (made["python"], made["system"], made["machine"]):
            sys.exit(
                f"sked: {ARCHIVE} is made for Python {made['python']} on {made['system']} {made['machine']}, "
                f"this is Python {' on '.join(here[:2])} {here[2]}\n"
                f"  run it with:  python{made['python']} {ARCHIVE}"
            )
        folder = unpacked(archive, made["id"])
    sys.path[:] = [entry for entry in sys.path if Path(entry or ".").resolve() != ARCHIVE]
    site.addsitedir(str(folder))
    sys.path.sort(key=lambda entry: entry != str(folder))  # before what else is installed here
    from sked_core.surface.cli import main as sked  # type: ignore[import-not-found,unused-ignore]

    sked()


def unpacked(archive: zipfile.ZipFile, name: str) -> Path:
    """The folder that holds what is in ``archive``; made if it is not there."""
    home = os.environ.get("XDG_CACHE_HOME", "")
    cache = (Path(home) if home.startswith("/") else Path.home() / ".cache") / "sked"
    try:
        cache.mkdir(mode=0o700, parents=True, exist_ok=True)
        status = cache.stat()
        if status.st_uid != os.geteuid() or status.st_mode & 0o022:
            raise PermissionError(f"{cache} is not this user's alone")
        target = cache / name
        if not target.is_dir():
            draft = Path(tempfile.mkdtemp(prefix=f"{name}.", dir=cache))
            extract(archive, draft)
            try:
                draft.rename(target)
            except OSError:
                shutil.rmtree(draft, ignore_errors=True)
                if not target.is_dir():  # else another process was first
                    raise
        return target
    except OSError:
        folder = Path(tempfile.mkdtemp(prefix="sked-"))
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
        extract(archive, folder)
        return folder


def extract(archive: zipfile.ZipFile, folder: Path) -> None:
    for one in archive.infolist():
        if one.filename.startswith(INSIDE) and not one.is_dir():
            path = folder / one.filename[len(INSIDE) :]
            if folder not in path.resolve().parents:
                raise ValueError(f"{one.filename} leads out of the folder")
            path.parent.mkdir(parents=True, exist_ok=True)
            with archive.open(one) as source, path.open("wb") as target:
                shutil.copyfileobj(source, target)
            path.chmod(0o755 if path.suffix == ".so" or one.external_attr >> 16 & 0o100 else 0o644)


main()
