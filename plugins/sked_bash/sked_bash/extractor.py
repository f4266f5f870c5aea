"""The program that unpacks an artifact: its rights and means are taken away before it reads the first byte.

unpack.run starts it by its path, with a Python that looks for modules in the standard library only: neither the agent's
folder nor its environment decide what it runs.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import importlib
import importlib.util
import json
import os
import resource
import signal
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

_CLONE_NEWIPC, _CLONE_NEWNET = 0x08000000, 0x40000000
"""Of linux/sched.h."""
_PR_SET_PDEATHSIG, _PR_SET_NO_NEW_PRIVS = 1, 38
"""Of linux/prctl.h."""


def main(arguments: dict[str, Any]) -> dict[str, str]:
    """Do what unpack.run asks for, with its rights and means: ``{}`` once it is done, else why not.

    Everything is imported by now: from then on it may neither be able to read Python's own files nor see them.
    """
    archive = _beside("archive.py")
    "".encode("cp437")
    with contextlib.suppress(ImportError):
        importlib.import_module("compression.zstd")
    source, folder = arguments["source"], arguments["folder"]
    try:
        _lower(arguments)
        with os.fdopen(source, "rb") as file:
            file.seek(0)
            limits: dict[str, Any] = {"to": arguments["to"], "max_bytes": arguments["max_bytes"]}
            if arguments["extract"]:
                archive.extract(file, arguments["name"], folder, max_files=arguments["max_files"], **limits)
            else:
                archive.place(file, arguments["name"], folder, **limits)
    except archive.Refused as refused:
        return {"refused": str(refused)}
    except OSError as error:
        return {"failed": error.strerror or str(error), "errno": errno.errorcode.get(error.errno or 0, "")}
    return {}


def _beside(name: str) -> ModuleType:
    """The module in the file ``name`` of this folder, which is not to be searched for anything else."""
    spec = importlib.util.spec_from_file_location("archive", Path(__file__).with_name(name))
    if spec is None or spec.loader is None:
        raise ImportError(name)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _lower(arguments: dict[str, Any]) -> None:
    """Give up all that is not needed, for good."""
    libc = ctypes.CDLL(None, use_errno=True)
    os.umask(0o022)
    if os.geteuid() == 0:
        # What can't be had everywhere (in a container, say) comes on top of the rest: no network, no other file.
        libc.unshare(_CLONE_NEWNET | _CLONE_NEWIPC)
        with contextlib.suppress(PermissionError):
            os.fchdir(arguments["folder"])
            os.chroot(".")
    for limit, most in arguments["limits"].items():
        number = getattr(resource, limit)
        _, hard = resource.getrlimit(number)
        most = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(number, (most, most))
    if arguments["uid"] is not None:
        os.setgroups([])
        os.setresgid(arguments["gid"], arguments["gid"], arguments["gid"])
        os.setresuid(arguments["uid"], arguments["uid"], arguments["uid"])
    # Last, since another user's rights take the first of them away: end with the agent, gain nothing by any program.
    for option, value in ((_PR_SET_PDEATHSIG, int(signal.SIGKILL)), (_PR_SET_NO_NEW_PRIVS, 1)):
        if libc.prctl(option, value, 0, 0, 0):
            raise OSError(ctypes.get_errno(), "prctl")
    if os.getppid() != arguments["parent"]:
        raise OSError(errno.ESRCH, "the agent has ended")


if __name__ == "__main__":
    sys.stdout.write(json.dumps(main(json.loads(sys.argv[1]))))
