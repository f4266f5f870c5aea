"""What the page costs with 5,000 tasks: time to first paint, memory of the tab, and from a change to the pixel.

python benchmarks/page.py [CHANGES] [BACKEND]

A store with 5,000 tasks of 50 services on 100 hosts, ``sked web``, and a headless Chromium (``CHROMIUM``, else the one
on PATH). First paint is the browser's own figure (first-contentful-paint), from five windows that were never used
before; memory is what the tab's process holds for itself (USS), once all is shown. Then one task after another turns
from healthy to unhealthy or back in the store, CHANGES times (100), while the topology is open: the time runs from the
commit's return until the frame after the block's class has changed. The peer is what the API's stream takes for the
same, so that the rest is the page's own part.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
from api import Stream, fill, share, url_of
from playwright.sync_api import Browser, Page, sync_playwright

from sked_core.interfaces.store import Put, Store
from sked_core.model import keys
from sked_core.model.codec import encode
from sked_core.model.types import Host, Liveness
from sked_core.runtime.health.probes import StoredHealth
from sked_core.runtime.plugins.backend import open_store
from sked_core.runtime.plugins.registry import Plugins
from sked_core.runtime.state import batches

PATHS = ("/topology", "/", "/services", "/tasks")
WINDOWS = 5
WATCH = """() => {
  window.shown = {};
  new MutationObserver(all => {
    const now = all.filter(one => one.target.id.startsWith('task-')).map(one => one.target.id.slice(5));
    if (now.length) requestAnimationFrame(() => setTimeout(() => now.forEach(id => { window.shown[id] = Date.now() })));
  }).observe(document.body, {subtree: true, attributes: true, attributeFilter: ['class']});
}"""


def populate(store: Store) -> list[tuple[str, str]]:
    """Tasks with their hosts, all healthy."""
    ids = fill(store)
    found, ops = [], []
    for key, entry in store.read(keys.HOST_TASKS).entries.items():
        host, task = key.removeprefix(keys.HOST_TASKS).split("/")
        found.append((host, task))
        ops.append(Put(keys.health(host, task), _health(task, True)))
        assert entry.value
    for host in sorted({host for host, _ in found}):
        ops.append(Put(keys.host(host), encode(Host(name=host, memory=65536, cpu_units=65536, disk=500_000))))
        ops.append(Put(keys.live(host), encode(Liveness("benchmark"))))
    for batch in batches([[op] for op in ops], max_ops=store.max_ops):
        store.commit(batch)
    assert len(found) == len(ids)
    return found


def _health(task: str, healthy: bool) -> bytes:
    """As an agent's own probes note it."""
    service = task.removeprefix("default-").rsplit("-", 2)[0]
    return encode(StoredHealth(healthy, "" if healthy else "GET /: connection refused", "default", service))


@contextmanager
def served(backend: str, folder: Path) -> Iterator[tuple[str, int]]:
    """``sked web`` on the store: its URL and its process."""
    command = [sys.executable, "-m", "sked_core.surface.cli", "web", "--listen", "127.0.0.1:0", "--backend", backend]
    log = folder / "log"
    with log.open("wb") as file:
        process = subprocess.Popen(command, stderr=file, env=os.environ)
    try:
        yield url_of(log), process.pid
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(30)


def first_paints(browser: Browser, url: str) -> None:
    for path in PATHS:
        took, bytes_ = [], 0
        for _ in range(WINDOWS):
            context = browser.new_context(viewport={"width": 1440, "height": 900})
            page = context.new_page()
            page.goto(url + path)
            page.wait_for_timeout(200)
            took.append(page.evaluate("performance.getEntriesByName('first-contentful-paint')[0].startTime"))
            bytes_ = page.evaluate("performance.getEntriesByType('navigation')[0].decodedBodySize")
            context.close()
        print(f"first paint of {path:<10} median {statistics.median(took):5.0f} ms, worst {max(took):5.0f} ms, "
              f"{bytes_ / 1024:.0f} KiB of HTML")  # fmt: skip


def tab_memory(browser: Browser) -> float:
    """MB of the largest of the browser's tabs."""
    found = browser.new_browser_cdp_session().send("SystemInfo.getProcessInfo")["processInfo"]
    tabs = [one["id"] for one in found if one["type"] == "renderer"]
    return max(psutil.Process(pid).memory_full_info().uss for pid in tabs) / 1e6


def to_the_pixel(page: Page, stream: Stream, store: Store, tasks: list[tuple[str, str]], changes: int) -> None:
    page.evaluate(WATCH)
    pixel, told = [], []
    healthy = dict.fromkeys(tasks, True)
    for _ in range(changes):
        one = random.choice(tasks)
        healthy[one] = not healthy[one]
        page.evaluate("id => { delete window.shown[id] }", one[1])
        stream.told.pop(one[1], None)
        store.commit([Put(keys.health(*one), _health(one[1], healthy[one]))])
        committed = time.time()
        deadline = committed + 30
        while (shown := page.evaluate("id => window.shown[id]", one[1])) is None:
            assert time.time() < deadline, f"{one} never changed"
            time.sleep(0.005)
        pixel.append(1000 * (shown / 1000 - committed))
        if one[1] in stream.told:
            told.append(1000 * (stream.told[one[1]] - committed))
        time.sleep(random.uniform(0.05, 0.3))
    for what, took in (("on the stream", told), ("at the pixel", pixel)):
        print(f"a change is {what:<14} after {statistics.median(took):4.0f} ms (median), "
              f"{share(took, 0.95):4.0f} ms (95 %), {max(took):4.0f} ms (worst of {len(took)})")  # fmt: skip


def main() -> None:
    changes = int(sys.argv[1]) if len(sys.argv) > 1 else 100
    program = os.environ.get("CHROMIUM") or shutil.which("chromium") or "chromium"
    with tempfile.TemporaryDirectory() as name, sync_playwright() as playwright:
        folder = Path(name)
        backend = sys.argv[2] if len(sys.argv) > 2 else f"sqlite://{folder}/sked.db"
        store = open_store(backend, Plugins.load())
        tasks = populate(store)
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        with served(backend, folder) as (url, pid):
            first_paints(browser, url)
            page = browser.new_context(viewport={"width": 1440, "height": 900}).new_page()
            page.goto(f"{url}/topology")
            while page.evaluate("document.documentElement.dataset.live") != "ok":
                time.sleep(0.05)
            print(f"blocks: {page.locator('.blocks a').count()}; memory of the tab: {tab_memory(browser):.0f} MB")
            stream = Stream(url)
            stream.start()
            assert stream.ready.wait(30)
            to_the_pixel(page, stream, store, tasks, changes)
            print(f"memory of the tab then: {tab_memory(browser):.0f} MB; "
                  f"of sked web: {psutil.Process(pid).memory_info().rss / 1e6:.0f} MB")  # fmt: skip
        browser.close()
        store.close()


if __name__ == "__main__":
    main()
