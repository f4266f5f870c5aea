"""Getting an artifact into the folder that a task starts in: all of it, or the task does not start."""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path
from threading import Event
from typing import IO

from sked_bash import unpack
from sked_bash.archive import is_archive
from sked_bash.cache import Cache
from sked_bash.download import Downloader
from sked_bash.source import Source, denials, masked
from sked_bash.unpack import DiskFull
from sked_core.plugin import Account, Artifacts, Denial, ExecutorError, Rejected


class ArtifactFolder:
    """Fetches what the policy allows, keeps it in ``folder`` by its checksum, and unpacks it for tasks."""

    def __init__(self, folder: Path, policy: Artifacts, downloader: Downloader | None = None) -> None:
        self._policy, self._downloader = policy, downloader or Downloader(policy)
        self._cache = Cache(folder, policy.cache_bytes)
        self._ended = Event()

    def close(self) -> None:
        """Give up what is being fetched. Idempotent."""
        self._ended.set()

    def denials(self, source: Source) -> list[Denial]:
        """All that the policy does not allow of ``source``, before anything is fetched."""
        return denials(source, self._policy)

    def put(self, source: Source | None, work: Path, account: Account | None = None) -> None:
        """Make the folder ``work``, which is not there yet, with the artifact (if any) in it: an archive unpacked,
        anything else as an executable file named as in the URL; by a process with the rights of ``account``, to whom
        all of it then belongs.

        Raises Rejected where the policy denies it, ExecutorError otherwise, permanent where the artifact is at fault;
        then there is no ``work``. While it is incomplete it lies beside, as ``work``.new, and nothing else is written
        but the cache.
        """
        if source is None:
            work.mkdir(mode=0o700)
            if account is not None:
                os.chown(work, account.uid, account.gid)
            return
        found = denials(source, self._policy)
        if found:
            raise Rejected("; ".join(str(denial) for denial in found))
        try:
            try:
                self._put(source, work, account)
            except DiskFull:
                if not self._cache.clear():
                    raise
                self._put(source, work, account)
        except OSError as error:
            raise ExecutorError(f"artifact {masked(source.url)}: {error.strerror or error}") from error

    def _put(self, source: Source, work: Path, account: Account | None) -> None:
        deadline = time.monotonic() + self._policy.seconds

        def fetch(file: IO[bytes]) -> None:
            self._downloader.fetch(source, file, deadline, self._ended)

        new = work.with_name(f"{work.name}.new")
        try:
            with self._cache.taken(source.checksum, fetch, deadline, self._ended) as fd:
                size = os.fstat(fd).st_size
                if size > self._policy.max_bytes:  # kept since a time when more was allowed
                    raise ExecutorError("an artifact is larger than the limit (artifacts.max_bytes)", permanent=True)
                if new.exists():
                    shutil.rmtree(new)
                new.mkdir(mode=0o700)
                folder = os.open(new, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
                try:
                    if account is not None:
                        os.fchown(folder, account.uid, account.gid)
                    self._unpack(source, fd, folder, deadline, account)
                finally:
                    os.close(folder)
            new.rename(work)
        except BaseException:
            shutil.rmtree(new, ignore_errors=True)
            raise

    def _unpack(self, source: Source, fd: int, folder: int, deadline: float, account: Account | None) -> None:
        try:
            unpack.run(
                fd,
                folder,
                name=source.name,
                to=source.to,
                unpack=source.unpack and is_archive(source.name),
                max_bytes=self._policy.max_bytes,
                max_files=self._policy.max_files,
                deadline=deadline,
                called_off=self._ended,
                account=account,
            )
        except ExecutorError as error:
            error.args = (f"artifact {error}",)
            raise
