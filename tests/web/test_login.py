"""Where the server has tokens, the page is for those who have one, and each sees and does what its role allows."""

from __future__ import annotations

import http.client
import urllib.parse
from collections.abc import Iterator
from pathlib import Path

import pytest

from rigs.browser import Looker, Site, tokens_file
from rigs.sked import Rig
from rigs.tls import make_certificate


@pytest.fixture(scope="module")
def guarded(chromium: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Site, dict[str, str]]]:
    """A page that takes tokens, on a store of its own with one service and no host."""
    folder = tmp_path_factory.mktemp("guarded")
    rig = Rig(f"sqlite://{folder / 'sked.db'}", folder)
    rig.apply(
        {
            "clusters": [{"name": "default", "services": ["web"]}],
            "services": [{"name": "web", "task_name": "web", "task_version": 1, "desired": 2}],
            "task_definitions": [{"name": "web", "version": 1, "containers": [
                {"name": "web", "type": "bash", "executor": {"start": "exec sleep 60"}}]}],
        }
    )  # fmt: skip
    path, tokens = tokens_file(folder, rita="read", oscar="operate", ada="admin")
    yield Site(rig, "--tokens", str(path)), tokens
    rig.clean_up()


@pytest.fixture
def site(guarded: tuple[Site, dict[str, str]]) -> Site:
    return guarded[0]


@pytest.fixture
def tokens(guarded: tuple[Site, dict[str, str]]) -> dict[str, str]:
    return guarded[1]


def log_in(seen: Looker, token: str, path: str = "/services/web") -> None:
    seen.go(path)
    seen.page.get_by_label("Token").fill(token)
    seen.page.get_by_role("button", name="Log in").click()
    seen.page.wait_for_url(lambda url: "/login" not in url)


def test_stranger_sees_the_way_to_log_in_and_nothing_else(look, site: Site, axe: str) -> None:
    seen = look()
    page = seen.go("/services/web")
    assert page.url == f"{site.url}/login?next=%2Fservices%2Fweb"
    assert seen.barriers(axe) == []
    seen.expected = ("403",)
    page.get_by_label("Token").fill("0123456789abcdef-wrong")
    page.get_by_role("button", name="Log in").click()
    assert "none of the tokens" in page.locator("[role=alert]").inner_text()
    for path in ("/v1/services", "/v1/stream", "/do/scale?service=web"):
        assert _asked(site, "GET", path)[0] in (401, 303)


def test_session_is_a_cookie_that_no_script_reads_and_no_address_holds_the_token(look, tokens) -> None:
    seen = look()
    log_in(seen, tokens["rita"])
    seen.live()
    cookies = {one["name"]: one for one in seen.context.cookies()}
    session = cookies["sked-page"]
    assert session["httpOnly"] and session["sameSite"] == "Strict"
    assert tokens["rita"] not in seen.page.url and tokens["rita"] not in session["value"]
    assert seen.page.evaluate("document.cookie") == ""
    assert "rita" in seen.page.locator(".side").inner_text()


def test_over_tls_the_cookie_is_for_this_host_and_tls_alone(look, guarded, tokens, tmp_path: Path) -> None:
    made = make_certificate(tmp_path / "tls")
    plain = guarded[0]
    files = ("--tokens", str(plain.rig.folder / "tokens"), "--tls-cert", str(made.cert), "--tls-key", str(made.key))
    site = Site(plain.rig, *files, tls=True)
    seen = look(url=site.url, ignore_https_errors=True)
    log_in(seen, tokens["ada"])
    seen.live()
    session = {one["name"]: one for one in seen.context.cookies()}["__Host-sked-page"]
    assert session["secure"] and session["httpOnly"] and session["path"] == "/"
    site.kill()


def test_role_hides_what_it_may_not_do_and_it_is_refused_when_asked_for_nevertheless(look, site, tokens) -> None:
    reader, operator, admin = look(), look(), look()
    for seen, name in ((reader, "rita"), (operator, "oscar"), (admin, "ada")):
        log_in(seen, tokens[name])
    assert reader.page.locator("main .actions a").count() == 0
    assert operator.page.locator("main .actions a", has_text="Scale").count() == 1
    assert operator.page.locator("main .actions a", has_text="Delete").count() == 0
    assert admin.page.locator("main .actions a", has_text="Delete").count() == 1
    for seen, path in ((reader, "/do/scale?service=web"), (operator, "/do/delete?target=service/web")):
        seen.expected = ("403",)
        assert "takes the role" in seen.go(path).locator("main").inner_text()
    form = {"proof": _proof(reader), "service": "web", "count": "9"}
    assert _asked(site, "POST", "/do/scale", form, _cookie(reader))[0] == 403
    assert site.rig.items("services")[0]["desired"] == 2


def test_what_is_done_bears_the_name_of_whoever_did_it(look, site: Site, tokens) -> None:
    seen = look()
    log_in(seen, tokens["oscar"], "/do/scale?service=web&count=3")
    seen.page.locator("main button", has_text="Scale").click()
    seen.sees(".note.ok", "2 → 3")
    assert [one["who"] for one in site.rig.events("service.scaled")] == ["oscar"]
    site.rig.sked("scale", "web", "2")


def test_form_of_another_page_is_refused(look, site: Site, tokens) -> None:
    seen = look()
    log_in(seen, tokens["ada"])
    cookie, form = _cookie(seen), {"service": "web", "count": "9", "proof": _proof(seen)}
    assert _asked(site, "POST", "/do/scale", form | {"proof": ""}, cookie)[0] == 403
    assert _asked(site, "POST", "/do/scale", form | {"proof": "0" * 64}, cookie)[0] == 403
    elsewhere = {"Origin": "https://elsewhere.example"}
    assert _asked(site, "POST", "/do/scale", form, cookie, elsewhere)[0] == 403
    assert _asked(site, "POST", "/do/scale", form, cookie, {"Sec-Fetch-Site": "cross-site"})[0] == 403
    assert _asked(site, "GET", "/", {}, cookie, {"Host": "elsewhere.example"})[0] == 421
    assert site.rig.items("services")[0]["desired"] == 2
    assert _asked(site, "POST", "/do/scale", form | {"count": "2"}, cookie)[0] == 303


def test_log_in_leads_to_this_site_only(site: Site, tokens) -> None:
    for next_ in ("https://elsewhere.example/", "//elsewhere.example", "/\\elsewhere.example", "javascript:alert(1)"):
        status, headers = _asked(site, "POST", "/login", {"token": tokens["ada"], "next": next_})
        assert (status, headers["location"]) == (303, "/")


def test_logging_out_ends_the_session_and_so_does_taking_the_token_back(look, site: Site, guarded, tokens) -> None:
    seen = look()
    log_in(seen, tokens["rita"])
    cookie = _cookie(seen)
    assert _asked(site, "GET", "/services", {}, cookie, {"Accept": "text/html"})[0] == 200
    seen.page.get_by_role("button", name="Log out").click()
    seen.page.wait_for_url("**/login")
    assert _asked(site, "GET", "/services", {}, cookie, {"Accept": "text/html"})[0] == 303
    log_in(seen, tokens["rita"])
    cookie = _cookie(seen)
    path = Path(site.rig.folder / "tokens")
    kept = path.read_text()
    path.write_text("".join(line for line in kept.splitlines(True) if not line.startswith("rita")))
    site.rig.until(
        "no session", lambda: _asked(site, "GET", "/services", {}, cookie, {"Accept": "text/html"})[0] == 303
    )
    path.write_text(kept)


def test_answers_forbid_what_others_could_do_with_them(site: Site, tokens) -> None:
    status, headers = _asked(site, "GET", "/login")
    assert status == 200
    policy = headers["content-security-policy"]
    assert "script-src 'self'" in policy and "unsafe" not in policy and "frame-ancestors 'none'" in policy
    assert headers["x-content-type-options"] == "nosniff" and headers["cache-control"] == "no-store"
    assert _asked(site, "GET", "/static/../../etc/passwd")[0] in (400, 404)
    assert _asked(site, "GET", "/static/sked.css")[0] == 200


def _cookie(seen: Looker) -> str:
    return next(one["value"] for one in seen.context.cookies() if one["name"] == "sked-page")


def _proof(seen: Looker) -> str:
    return seen.page.locator("form[action='/logout'] [name=proof]").get_attribute("value") or ""


def _asked(
    site: Site,
    method: str,
    path: str,
    form: dict[str, str] | None = None,
    cookie: str = "",
    headers: dict[str, str] | None = None,
) -> tuple[int, dict[str, str]]:
    """A request as anybody could make it: status and headers of the answer."""
    connection = http.client.HTTPConnection("127.0.0.1", site.port, timeout=30)
    own = {"Cookie": f"sked-page={cookie}"} if cookie else {}
    if method == "POST":
        own["Content-Type"] = "application/x-www-form-urlencoded"
    try:
        connection.request(
            method, path, urllib.parse.urlencode(form) if form and method == "POST" else None, own | (headers or {})
        )
        answer = connection.getresponse()
        return answer.status, {name.lower(): value for name, value in answer.getheaders()}
    finally:
        connection.close()
