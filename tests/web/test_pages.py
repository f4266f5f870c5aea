"""Every page: it shows what it should, nothing goes wrong in it, and nothing keeps anybody from using it."""

from __future__ import annotations

import pytest

from rigs.browser import Fleet, picture

PAGES = {
    "/": "Needs attention",
    "/services": "worker",
    "/services/web": "As it is declared",
    "/services/web/rollouts": "Roll-outs so far",
    "/services/web/versions": "Versions that are stored",
    "/services/web/checks": "Checks that are declared",
    "/services/worker/explain": "one more task",
    "/services/web/events": "service.applied",
    "/services/api/logs": "default-api-1-0",
    "/tasks": "default-web-1-0",
    "/tasks/default-web-1-0": "Its story",
    "/hosts": "4 GB",
    "/hosts/db-2": "What its tasks reserve",
    "/topology": "Every box is a host",
    "/topology?by=service": "Every box is a host",
    "/events": "task.issued",
    "/state": "Side by side",
    "/state?prefix=config/services/": "config/services/web",
    "/state?prefix=config/services/&key=config/services/web": '"task_name": "web"',
    "/state/service/web": "what schedulers made of it",
    "/state/task/default-web-1-0": "what agents and checks say",
    "/plan": "Paste a manifest",
    "/help": "next and former row",
    "/search?q=default-web": "Found for",
    "/do/scale?service=web&count=5": "sked scale web 5",
    "/do/drain?host=db-1": "sked drain db-1",
    "/services/nowhere": "no service nowhere",
}
MATTER = {
    "/": "#attention",
    "/services/web/rollouts": "#history",
    "/services/web/versions": "#diff",
    "/services/worker/explain": "table.matrix tbody tr",
    "/services/api/logs": "pre.log",
    "/topology": ".blocks a",
    "/topology?by=service": ".blocks a",
    "/state?prefix=config/services/&key=config/services/web": "#value",
    "/state/service/web": "#side-3",
    "/state/task/default-web-1-0": "#side-3",
    "/state": ".plain-links a",
    "/plan": "main form textarea",
    "/do/scale?service=web&count=5": "main form input[name=count]",
    "/do/drain?host=db-1": "main form button",
    "/services/nowhere": "main [role=alert]",
}
"""What a page is for, where that is no table."""
PICTURES = {
    "/": "overview",
    "/services/web": "service",
    "/services/worker/explain": "explanation",
    "/hosts": "hosts",
    "/topology?by=service": "topology",
    "/tasks/default-web-1-0": "task",
}


@pytest.mark.parametrize("path", PAGES)
def test_page_shows_its_matter_without_errors_or_barriers(path: str, look, axe: str) -> None:
    seen = look()
    seen.expected = ("404",) if "nowhere" in path else ()
    page = seen.go(path)
    assert PAGES[path] in page.locator("body").inner_text()
    if path in PICTURES:
        picture(page, PICTURES[path])
    assert seen.barriers(axe) == []
    page.emulate_media(color_scheme="dark")
    assert seen.barriers(axe) == []
    page.set_viewport_size({"width": 360, "height": 700})
    wide = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
    assert wide <= 0, f"{wide} pixels are out of sight"
    assert seen.barriers(axe) == []


@pytest.mark.parametrize("path", PAGES)
def test_page_can_be_read_without_javascript(path: str, look) -> None:
    seen = look(java_script_enabled=False)
    seen.expected = ("404",) if "nowhere" in path else ()
    page = seen.go(path)
    assert PAGES[path] in page.locator("body").inner_text()
    assert page.locator("main h1").inner_text().strip()
    assert page.locator(MATTER.get(path, "main table tbody tr")).first.is_visible()
    for name in ("Services", "Tasks", "Hosts"):
        assert page.get_by_role("navigation").get_by_role("link", name=name).is_visible()


def test_overview_names_what_needs_somebody_and_the_command_that_tells_more(look) -> None:
    page = look().go("/")
    said = page.locator("#attention").locator("xpath=ancestor::section").inner_text()
    assert "service/worker" in said and "waiting" in said and "sked explain worker" in said


def test_explanation_is_a_matrix_of_hosts_and_reasons(look) -> None:
    page = look().go("/services/worker/explain")
    heads = page.locator(".matrix thead th").all_inner_texts()
    assert "memory" in heads and "requires" in heads
    row = page.locator(".matrix tr", has=page.locator("a", has_text="web-1")).inner_text()
    assert "zone in b, c" in row and "no" in row


def test_search_leads_to_what_has_that_name(look) -> None:
    page = look().go("/")
    page.get_by_role("searchbox").fill("db-1")
    page.keyboard.press("Enter")
    page.wait_for_url("**/hosts/db-1")


def test_topology_has_a_block_for_every_task_and_says_the_same_in_words(look, fleet: Fleet) -> None:
    page = look().go("/topology")
    tasks = fleet.rig.items()
    assert page.locator(".blocks a").count() == len(tasks)
    on = sum(task["host"] == "db-2" for task in tasks)
    assert f"{on} tasks" in page.locator("#host-db-2").inner_text()


def test_keys_lead_everywhere(look) -> None:
    seen = look()
    page = seen.go("/", live=True)
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "main"
    page.keyboard.press("/")
    assert page.evaluate("document.activeElement.name") == "q"
    page.keyboard.press("Escape")
    page.keyboard.press("g")
    page.keyboard.press("h")
    page.wait_for_url("**/hosts")
    page.keyboard.press("j")
    page.keyboard.press("j")
    page.keyboard.press("Enter")
    page.wait_for_url("**/hosts/db-2")
    page.keyboard.press("?")
    page.locator("dialog[open]").wait_for()
    page.keyboard.press("Escape")
    page.locator("dialog").wait_for(state="detached")


def test_colours_follow_the_system_until_somebody_chooses(look) -> None:
    def background(seen) -> str:
        return seen.page.evaluate("getComputedStyle(document.body).color")

    light, dark = look(), look(color_scheme="dark")
    light.go("/help")
    dark.go("/help")
    assert background(light) != background(dark)
    light.page.locator("button[name=theme]").click()
    light.page.wait_for_selector("html[data-theme=dark]")
    assert background(light) == background(dark)
