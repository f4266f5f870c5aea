"""A page that is open shows what happens without being loaded again, and says when it can't."""

from __future__ import annotations

import json
import signal
import time
import urllib.request

from rigs.browser import LIFETIME, Fleet, Looker, Site, container, picture, web

ALONE = "document.body.dataset.same === 'yes'"


def mark(seen: Looker) -> None:
    """So that the test knows that the page was not loaded anew."""
    seen.page.evaluate("document.body.dataset.same = 'yes'")


def declare(fleet: Fleet, service: str, count: int, version: int = 1, **more: object) -> None:
    """A service of its own for one test, in a cluster of its own."""
    definition = {"name": service, "version": version, "memory": 50, "containers": container(service), **more}
    fleet.rig.apply(
        {
            "clusters": [{"name": service, "services": [service]}],
            "services": [{"name": service, "task_name": service, "task_version": version, "desired": count}],
            "task_definitions": [definition],
        }
    )


def test_rollout_is_watched_to_its_end(look, fleet: Fleet) -> None:
    seen, other = look(), look()
    page = seen.go("/services/web", live=True)
    mark(seen)
    other.go("/", live=True)
    fleet.rig.apply(
        {
            "services": [
                {"name": "web", "task_name": "web", "task_version": 2, "desired": 4, "update": {"healthy_for": "2s"}}
            ],
            "task_definitions": [web(2)],
        }
    )
    page.locator("h2#rollout", has_text="version 1 → 2").wait_for()
    seen.sees(".cap, .body", "of former versions")
    picture(page, "rollout")
    other.sees("#busy-web", "version 1 → 2")
    seen.until(
        "document.querySelectorAll('#rows tr').length === 4 && !document.querySelector('h2#rollout') &&"
        " [...document.querySelectorAll('#rows tr')].every(row => row.id.startsWith('task-default-web-2-'))"
    )
    assert page.evaluate(ALONE)
    other.sees("main", "No roll-out is under way")
    page.locator(".tabs a", has_text="Roll-outs").click()
    seen.sees("main", "succeeded")


def test_tasks_come_and_go_and_the_rest_of_the_page_stays(look, fleet: Fleet) -> None:
    declare(fleet, "tides", 2)
    fleet.rig.until("two", lambda: len(fleet.rig.items()) and len(_of(fleet, "tides")) == 2)
    services, topology = look(), look()
    services.go("/services/tides", live=True)
    topology.go("/topology", live=True)
    for seen in (services, topology):
        mark(seen)
    fleet.rig.sked("scale", "tides", "5")
    services.until("document.querySelectorAll('#rows tr').length === 5")
    services.sees("#rows", "healthy")
    topology.until("document.querySelectorAll('.blocks a[id^=task-tides-tides]').length === 5")
    heads = "[...document.querySelectorAll('.box')].every(box => box.querySelector('p').textContent.includes("
    heads += "box.querySelectorAll('.blocks a').length + ' tasks'))"
    topology.until(heads)
    fleet.rig.sked("delete", "service/tides", "--cascade", "-y")
    topology.until("document.querySelectorAll('.blocks a[id^=task-tides-tides]').length === 0")
    topology.until(heads)
    services.sees("[role=alert]", "no service tides")
    assert topology.page.evaluate(ALONE) and services.page.evaluate(ALONE)


def _of(fleet: Fleet, service: str) -> list[dict[str, object]]:
    return [task for task in fleet.rig.items() if task["service"] == service]


def test_agent_that_is_killed_is_seen_long_before_the_store_knows(look, fleet: Fleet, record_property) -> None:
    hosts, topology = look(), look()
    page = hosts.go("/hosts", live=True)
    topology.go("/topology", live=True)
    # The page itself notes when the word appears, to the millisecond.
    page.evaluate(
        "window.seen = {}; new MutationObserver(() => { const row = document.getElementById('host-web-3');"
        " for (const word of ['does not answer', 'down'])"
        "  if (row && row.textContent.includes(word) && !window.seen[word])"
        "   requestAnimationFrame(() => { window.seen[word] ||= Date.now() }) })"
        ".observe(document.body, {subtree: true, childList: true, characterData: true, attributes: true})"
    )
    address = fleet.rig.backend.replace("consul://", "http://") + "/v1/kv/hosts/live/web-3"
    killed = time.time()
    fleet.agents["web-3"].kill()
    hosts.until("window.seen['does not answer']")
    shown = page.evaluate("window.seen['does not answer']") / 1000 - killed
    assert not _gone(address), "the store knew it as well by then"
    topology.page.locator("#host-web-3.down", has_text="does not answer").wait_for()
    seen = look()
    seen.go("/", live=True)
    seen.sees(".attention", "the agent gives no answer since")
    known = fleet.rig.until("the end of its lease", lambda: _gone(address)) - killed
    hosts.until("window.seen['down']")
    down = page.evaluate("window.seen['down']") / 1000 - killed
    print(f"\nkilled: the page showed it {shown:.3f} s later, the store after {known:.1f} s, the page {down:.1f} s")
    for name, seconds in (("page_showed_after", shown), ("store_knew_after", known), ("page_said_down_after", down)):
        record_property(name, round(seconds, 3))
    topology.page.locator("#host-web-3.down", has_text="down").wait_for()
    seen.sees(".attention", "no agent answers")
    hosts.until("!document.getElementById('host-web-3').textContent.includes('does not answer')")
    picture(seen.page, "host-down")
    fleet.agents["web-3"] = fleet.agent("web-3")
    hosts.until("document.getElementById('host-web-3').textContent.includes('ready')")
    topology.page.locator("#host-web-3:not(.down)").wait_for()
    assert shown < 10 and down - known < 10, "of this a person would not say that it is live"


def _gone(address: str) -> float:
    """The time at which Consul said that the key is not there, if it does."""
    try:
        with urllib.request.urlopen(address, timeout=60) as answer:
            json.load(answer)
    except urllib.error.HTTPError:
        return time.time()
    return 0.0


def test_broken_stream_is_said_and_what_was_missed_is_shown_once_it_is_back(look, fleet: Fleet, site: Site) -> None:
    declare(fleet, "break", 1)
    seen = look()
    seen.expected = (
        "ERR_CONNECTION_REFUSED",
        "ERR_INCOMPLETE_CHUNKED_ENCODING",
        "ERR_CONNECTION_RESET",
        "network error",
    )
    page = seen.go("/services/break", live=True)
    seen.until("document.querySelectorAll('#rows tr').length === 1")
    mark(seen)
    site.kill()
    page.wait_for_selector("html[data-live=stale]")
    assert "stale since" in page.locator("#live").inner_text()
    picture(page, "stale")
    fleet.rig.sked("scale", "break", "3")
    site.start()
    seen.live()
    assert page.locator("#live").inner_text() == "live"
    seen.until("document.querySelectorAll('#rows tr').length === 3")
    assert page.evaluate(ALONE)
    fleet.rig.sked("scale", "break", "2")  # and it goes on from there
    seen.until("document.querySelectorAll('#rows tr').length === 2")


def test_server_that_hangs_is_noticed_though_its_connection_stays(look, site: Site) -> None:
    seen = look()
    seen.go("/services", live=True)
    assert site.proc is not None
    site.proc.signal(signal.SIGSTOP)
    try:
        seen.page.wait_for_selector("html[data-live=stale]")
    finally:
        site.proc.signal(signal.SIGCONT)
    seen.live()


def test_store_that_gives_no_answer_is_said_on_the_page(look, fleet: Fleet, consul_of_fleet) -> None:
    seen = look()
    seen.go("/services", live=True)
    consul_of_fleet.pause()
    try:
        seen.page.wait_for_selector("html[data-live=stale]")
        assert "the store gives no answer" in seen.page.locator("#live").inner_text()
        assert "web" in seen.page.locator("main").inner_text()
    finally:
        consul_of_fleet.resume()
    seen.live()


def test_log_is_read_as_it_is_written_of_a_task_and_of_a_service(look, fleet: Fleet) -> None:
    task, service, still = look(), look(), look(java_script_enabled=False)
    task.go("/tasks/default-api-1-0")
    service.go("/services/api/logs")
    last = "Number(document.querySelector('.log').textContent.trim().split('request ').pop())"
    task.until(f"{last} > 0")
    before = task.page.evaluate(last)
    task.until(f"{last} > {before}")
    for number in range(3):
        service.sees(".log", f"default-api-1-{number}  request")
    assert "request " in still.go("/tasks/default-api-1-0").locator(".log").inner_text()
    picture(task.page, "logs")


def test_text_from_tasks_and_the_store_stays_text(look, fleet: Fleet) -> None:
    evil = "<img src=x onerror=alert(1)><script>alert(2)</script>\x1b[2J\u202eevil" + "wide" * 30
    start = f"printf '%s\\n' \"$EVIL\"; exec timeout {LIFETIME} sleep 3"
    bad = [{"name": "evil", "type": "bash", "executor": {"start": start, "env": {"EVIL": evil}}}]
    fleet.rig.sked("cordon", "db-1", "--why", evil)
    declare(fleet, "evil", 1, containers=bad)
    fleet.rig.until("a failure", lambda: any(task["failure"] for task in _of(fleet, "evil")))
    seen = look()
    seen.page.on("dialog", lambda _: seen.wrong.append("a script of the store's was run"))
    paths = (
        "/hosts",
        "/hosts/db-1",
        "/events",
        "/tasks/evil-evil-1-0",
        "/services/evil/rollouts",
        "/state/task/evil-evil-1-0",
    )
    for path in (*paths, "/state?prefix=hosts/marks/&key=hosts/marks/db-1", "/services/evil/logs"):
        page = seen.go(path)
        assert page.locator("img[src=x]").count() == 0 and page.locator("main script").count() == 0, path
        text = page.locator("main").inner_text()
        assert "\x1b" not in text and "\u202e" not in text, path
        page.set_viewport_size({"width": 360, "height": 700})
        wide = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
        assert wide <= 0, f"{path}: {wide} pixels are out of sight"
    assert "<img src=x" in seen.go("/hosts/db-1").locator("main").inner_text()
    assert "<script>alert(2)</script>" in seen.go("/services/evil/logs").locator(".log").inner_text()
    fleet.rig.sked("uncordon", "db-1")
    fleet.rig.sked("delete", "service/evil", "--cascade", "-y")
