"""Whether agents answer: an open connection to each that can be reached from here, whose end is noticed at once.

The store finds out that an agent has died when its lease ends. A connection to it ends with it: then another one is
made, and where nobody answers that, the mirror is told, until somebody does or the store says that the host is down.
Of agents that have never answered here nothing is said, since what is in the way may be something else than their end.
The store is asked nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import errno
import logging
import random
import re
import ssl
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from urllib.parse import urlsplit

from sked_core.client.afar import agents
from sked_core.client.copied.mirror import Mirror
from sked_core.client.held import Held
from sked_core.errors import SkedError, Unavailable
from sked_core.model import keys
from sked_core.plugin import SystemClock
from sked_core.serving.listening import short_path

log = logging.getLogger("sked.web")

MOST = 300
"""Agents that are watched at once, each by a connection of its own: so many leave room for pages and streams among the
1024 open files that a process mostly gets."""
ASK_SECONDS = 10.0
"""How often an agent is asked, by the same connection: before the agent's server ends it as idle (serving.server)."""
ANSWER_SECONDS = 5.0
AGAIN_SECONDS = 1.0
"""From one connection to the next, where an agent answered before; also where it does but ends each connection."""
LATER_SECONDS = 15.0
"""The same where none ever did."""
SPREAD_SECONDS = 1.0
"""All that is new is begun within it, not at once."""
LOOK_SECONDS = 30.0
"""How often to look which agents can be reached, besides when hosts change."""
TRUST_SECONDS = 60.0
"""How long the certificates of authorities are kept before they are read again."""
MAX_BYTES = 16 * 1024
_LENGTH = re.compile(rb"\r\ncontent-length:[ \t]*(\d{1,5})[ \t]*\r\n", re.IGNORECASE)
_uniform = random.SystemRandom().uniform
_FAR = frozenset({errno.EHOSTUNREACH, errno.EHOSTDOWN, errno.ETIMEDOUT})
"""What an address says whose machine is gone; other errors may be this machine's own."""


class Answering:
    """Tells ``mirror`` which agents give no answer, while ``running``. Used in one loop alone."""

    def __init__(self, mirror: Mirror) -> None:
        self._mirror = mirror
        self._watched: dict[tuple[str, str], asyncio.Task[None]] = {}
        """By host and URL."""
        self._silent: dict[str, str] = {}
        self._trusted: tuple[float, ssl.SSLContext] | None = None
        self._reading = asyncio.Lock()

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Watch while the body runs."""
        loop, woken = asyncio.get_running_loop(), asyncio.Event()

        def tell() -> None:
            with contextlib.suppress(RuntimeError):  # the loop has ended
                loop.call_soon_threadsafe(woken.set)

        forget = self._mirror.feed.listen(tell)
        choosing = asyncio.create_task(self._choose(woken))
        try:
            yield
        finally:
            forget()
            ending = [choosing, *self._watched.values()]
            for task in ending:
                task.cancel()
            await asyncio.wait(ending, timeout=AGAIN_SECONDS)

    async def _choose(self, woken: asyncio.Event) -> None:
        seen: tuple[object, ...] = ()
        looked = float("-inf")
        while True:
            woken.clear()
            now = asyncio.get_running_loop().time()
            with contextlib.suppress(Unavailable):  # nothing was read yet
                picture = self._mirror.look()
                areas = (picture.area(keys.HOSTS), picture.area(keys.LIVE))
                if now >= looked + LOOK_SECONDS or any(one is not two for one, two in zip(areas, seen, strict=False)):
                    seen, looked = areas, now
                    self._watch(_reachable(*areas))
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(woken.wait(), LOOK_SECONDS)

    def _watch(self, wanted: Mapping[str, str]) -> None:
        """Watch the agents at these URLs, by host, and no others."""
        pairs = set(sorted(wanted.items())[:MOST])
        for pair in self._watched.keys() - pairs:
            self._watched.pop(pair).cancel()
            self._forget(pair[0])
        for pair in pairs - self._watched.keys():
            self._watched[pair] = asyncio.create_task(self._follow(*pair))

    async def _follow(self, host: str, url: str) -> None:
        loop = asyncio.get_running_loop()
        known, rest = False, _uniform(0, SPREAD_SECONDS)
        while True:
            await asyncio.sleep(rest)
            begun = loop.time()
            try:
                async for _ in self._answers(host, url):
                    if not known:
                        log.debug("the agent of %s answers", host)
                    known = True
                    self._heard(host)
                rest = max(begun + AGAIN_SECONDS - loop.time(), 0) + _uniform(0, 0.05)
                continue
            except ValueError as error:
                # Among them: a certificate that is not trusted.
                log.debug("at %s is somebody else than the agent of %s: %s", url, host, error)
                known = False
                self._forget(host)
            except (EOFError, OSError) as error:
                if known and _of_the_other_end(error):
                    self._unheard(host, url, error)
            except SkedError as error:
                log.debug("the agent of %s at %s can't be asked: %s", host, url, error)
            rest = (AGAIN_SECONDS if known else LATER_SECONDS) * _uniform(0.9, 1.1)

    async def _answers(self, host: str, url: str) -> AsyncIterator[None]:
        """By one connection, until that ends after an answer at least. Raises EOFError and OSError where none came,
        ValueError where it is not that of this agent."""
        async with asyncio.timeout(ANSWER_SECONDS):
            reader, writer = await self._connected(url)
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                await _asked(reader, writer, host, url)
            while True:
                yield
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(ASK_SECONDS):
                        await _end_of(reader)
                        return
                try:
                    async with asyncio.timeout(ANSWER_SECONDS):
                        await _asked(reader, writer, host, url)
                except (EOFError, OSError):
                    return  # another connection shows what that means
        finally:
            writer.transport.abort()

    async def _connected(self, url: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if url.startswith("unix:"):
            with short_path(Path(url.removeprefix("unix:"))) as name:
                return await asyncio.open_unix_connection(name, limit=MAX_BYTES)
        parts = urlsplit(url)
        trust = await self._trust() if parts.scheme == "https" else None
        port = parts.port or (443 if trust else 80)
        return await asyncio.open_connection(parts.hostname or "", port, ssl=trust, limit=MAX_BYTES)

    async def _trust(self) -> ssl.SSLContext:
        async with self._reading:
            now = asyncio.get_running_loop().time()
            if self._trusted is None or now - self._trusted[0] > TRUST_SECONDS:
                self._trusted = (now, await asyncio.to_thread(agents.trust))
            return self._trusted[1]

    # --- what is known -------------------------------------------------------------------------------------------

    def _unheard(self, host: str, url: str, error: BaseException) -> None:
        if host not in self._silent:
            now = datetime.datetime.fromtimestamp(SystemClock().wall(), datetime.UTC)
            self._silent[host] = now.strftime("%Y-%m-%dT%H:%M:%SZ")
            log.warning("the agent of %s at %s gives no answer: %s", host, url, str(error) or type(error).__name__)
            self._mirror.hears_nothing_of(self._silent)

    def _heard(self, host: str) -> None:
        if host in self._silent:
            log.info("the agent of %s answers again", host)
            self._forget(host)

    def _forget(self, host: str) -> None:
        if self._silent.pop(host, None) is not None:
            self._mirror.hears_nothing_of(self._silent)


def _reachable(hosts: Mapping[str, Held], live: Mapping[str, object]) -> dict[str, str]:
    """URLs by host, of those that the store counts as running."""
    found = {}
    for key, one in hosts.items():
        name = keys.last_segment(key)
        if one.made is not None and keys.live(name) in live:
            url = agents.url_from_here(one.made)
            if url and f"{name}{url}".isascii() and f"{name}{url}".isprintable():
                found[name] = url
    return found


async def _end_of(reader: asyncio.StreamReader) -> None:
    """Returns when the other end closes the connection, or says what nobody asked."""
    with contextlib.suppress(ConnectionError):
        await reader.read(1)


async def _asked(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, host: str, url: str) -> None:
    """Ask the agent of ``host`` for any answer, and take it. Raises ValueError for that of somebody else."""
    where = "localhost" if url.startswith("unix:") else urlsplit(url).netloc
    writer.write(f"GET /healthz HTTP/1.1\r\nHost: {where}\r\nSked-Host: {host}\r\n\r\n".encode("ascii"))
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except asyncio.LimitOverrunError as error:
        raise ValueError("an answer without an end") from error
    length = _LENGTH.search(head)
    if not head.startswith(b"HTTP/1.1 ") or length is None:
        raise ValueError("no answer of an agent")
    await reader.readexactly(int(length[1]))
    if head[9:12] == b"421":
        raise ValueError("another host's agent")


def _of_the_other_end(error: BaseException) -> bool:
    """Whether this tells that nobody is there, rather than that this process can't ask."""
    gone = (EOFError, ConnectionError, FileNotFoundError, TimeoutError)
    return isinstance(error, gone) or getattr(error, "errno", None) in _FAR
