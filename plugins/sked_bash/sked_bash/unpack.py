"""Having a process with few rights put an artifact into a task's folder: nobody knows what its bytes do to the
libraries that read it (zlib, bz2, lzma are C)."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from threading import Event

from sked_core.plugin import Account, ExecutorError

MEMORY_BYTES = 512 * 1024**2
CPU_SECONDS = 600
_MOST_SAID = 8192
_SLICE_SECONDS = 0.2


class DiskFull(ExecutorError):
    """There is no space for an artifact on this host."""


def run(
    source: int,
    folder: int,
    *,
    name: str,
    to: str,
    unpack: bool,
    max_bytes: int,
    max_files: int,
    deadline: float,
    called_off: Event,
    account: Account | None = None,
) -> None:
    """Unpack the open file ``source``, whose kind ``name`` tells, below the open folder ``folder``, or copy it there as
    ``name`` unless ``unpack``; with the rights of ``account``, to whom the folder has to belong. The process takes them
    itself once Python is up: that user may not be able to read, or even reach, the Python of the agent.

    Returns once all of it is there. Raises ExecutorError, permanent where the archive is at fault; also when
    ``deadline`` (monotonic seconds) passes or ``called_off`` is set. Then nothing goes on, and what was written is left
    to the caller.
    """
    arguments = {
        "source": source,
        "folder": folder,
        "name": name,
        "to": to,
        "extract": unpack,
        "max_bytes": max_bytes,
        "max_files": max_files,
        "uid": account.uid if account else None,
        "gid": account.gid if account else None,
        "parent": os.getpid(),
        "limits": {
            "RLIMIT_FSIZE": max_bytes,
            "RLIMIT_CPU": CPU_SECONDS,
            "RLIMIT_NOFILE": 128,
            "RLIMIT_AS": MEMORY_BYTES,
            "RLIMIT_CORE": 0,
            "RLIMIT_NPROC": 0,
        },
    }
    process = subprocess.Popen(
        [sys.executable, "-I", "-S", str(Path(__file__).with_name("extractor.py")), json.dumps(arguments)],
        cwd="/",
        env={},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        pass_fds=(source, folder),
    )
    try:
        said = _said(process, deadline, called_off)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        code = process.wait()
        if process.stdout is not None:
            process.stdout.close()
    if said is None:
        raise ExecutorError("given up" if called_off.is_set() else "not unpacked in time")
    _judge(said, code, name)


def _said(process: subprocess.Popen[bytes], deadline: float, called_off: Event) -> bytes | None:
    """All that it wrote, once it has ended; None if it did not in time."""
    if process.stdout is None:  # can't be
        return b""
    said, fd = b"", process.stdout.fileno()
    events = select.poll()  # select.select takes no descriptor from 1024 on
    events.register(fd, select.POLLIN)
    while not called_off.is_set() and (left := deadline - time.monotonic()) > 0:
        if not events.poll(1000 * min(left, _SLICE_SECONDS)):
            continue
        if not (chunk := os.read(fd, _MOST_SAID)) or len(said) > _MOST_SAID:
            return said
        said += chunk
    return None


def _judge(said: bytes, code: int, name: str) -> None:
    try:
        answer = json.loads(said)
        refused, failed, number = (str(answer.get(key, ""))[:400] for key in ("refused", "failed", "errno"))
    except (ValueError, AttributeError):
        how = f"was killed by signal {-code}" if code < 0 else f"ended with {code}"
        raise ExecutorError(f"{name} can't be unpacked: what does it {how}", permanent=code < 0) from None
    if refused:
        raise ExecutorError(f"{name}: {refused}", permanent=True)
    if number in ("ENOSPC", "EDQUOT"):
        raise DiskFull(f"{name} can't be unpacked: {failed}", hint="make room on the disk of the agent's state folder")
    if failed:
        raise ExecutorError(f"{name} can't be unpacked: {failed}", permanent=number == "EFBIG")
