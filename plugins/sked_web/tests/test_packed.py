"""What goes in gzip over the wire, what doesn't, and that ETags go on being right."""

from __future__ import annotations

import gzip

import httpx
import pytest

from sked_core.interfaces.store import Put
from sked_core.model import keys
from sked_core.model.codec import encode
from sked_core.model.types import Host
from sked_web.packed import packed, takes_gzip

from .conftest import Web, tasks_of

PLAIN = {"accept-encoding": "identity"}


def raw(client: httpx.Client, path: str, **headers: str) -> tuple[httpx.Response, bytes]:
    """The answer, and its body as it came over the wire."""
    with client.stream("GET", path, headers={"accept-encoding": "gzip", **headers}) as answer:
        return answer, b"".join(answer.iter_raw())


def many(web: Web) -> None:
    web.apply()
    web.host("h0", "h1", "h2")
    web.issue(*tasks_of(200))


def test_a_large_list_goes_in_gzip_to_who_takes_it_and_is_the_same_document(web: Web, api: httpx.Client) -> None:
    many(web)
    whole = api.get("/v1/tasks", headers=PLAIN)
    assert "content-encoding" not in whole.headers
    answer, body = raw(api, "/v1/tasks")
    assert answer.headers["content-encoding"] == "gzip"
    assert gzip.decompress(body) == whole.content
    assert len(body) * 5 < len(whole.content)
    assert whole.headers["vary"] == answer.headers["vary"] == "accept-encoding"


def test_whoever_has_a_document_either_way_is_told_that_it_has_not_changed(web: Web, api: httpx.Client) -> None:
    many(web)
    answer, _ = raw(api, "/v1/tasks")
    plain = api.get("/v1/tasks", headers=PLAIN)
    for tag in (answer.headers["etag"], plain.headers["etag"]):
        for coding in ("gzip", "identity"):
            same, body = raw(api, "/v1/tasks", **{"if-none-match": tag, "accept-encoding": coding})
            assert (same.status_code, body) == (304, b"")
            assert "content-encoding" not in same.headers
    web.issue(*tasks_of(1, scheduled=False))
    other, _ = raw(api, "/v1/tasks", **{"if-none-match": answer.headers["etag"]})
    assert other.status_code == 200
    assert other.headers["etag"] != answer.headers["etag"]


def test_the_etag_of_a_packed_object_may_be_given_as_if_match(web: Web, api: httpx.Client) -> None:
    web.apply()
    web.host("h0")
    tagged = Host(name="h0", memory=8192, cpu_units=4096, disk=1, tags={str(number): "x" * 100 for number in range(50)})
    web.store.commit([Put(keys.host("h0"), encode(tagged))])
    web.settled()
    answer, _ = raw(api, "/v1/hosts/h0")
    assert answer.headers["content-encoding"] == "gzip"
    tag = {"if-match": answer.headers["etag"]}
    assert tag["if-match"].startswith("W/")
    assert api.post("/v1/hosts/h0/cordon", json={}, headers=tag).status_code == 200
    assert api.post("/v1/hosts/h0/uncordon", json={}, headers=tag).status_code == 412


def test_small_answers_and_the_event_stream_go_as_they_are(web: Web, api: httpx.Client) -> None:
    many(web)
    assert "content-encoding" not in api.get("/v1/version").headers
    with api.stream("GET", "/v1/stream") as stream:
        assert "content-encoding" not in stream.headers
        assert next(stream.iter_raw()).startswith(b"retry:")


def test_a_page_is_packed_only_where_nothing_of_its_address_stands_in_it(web: Web, api: httpx.Client) -> None:
    many(web)
    html = {"accept": "text/html"}
    for path in ("/tasks", "/topology"):
        answer, body = raw(api, path, **html)
        assert answer.headers["content-encoding"] == "gzip"
        assert b"</html>" in gzip.decompress(body)
        assert answer.headers["cache-control"] == "no-store"
    for path in ("/tasks?service=web", "/services/web", "/services/none-such", f"/state?prefix={'x' * 100}"):
        answer, body = raw(api, path, **html)
        assert "content-encoding" not in answer.headers, path
    script, body = raw(api, "/static/sked.js")
    assert (script.headers["content-encoding"], gzip.decompress(body)[:2]) == ("gzip", b"//")


@pytest.mark.parametrize(
    ("header", "takes"),
    [
        ("gzip", True),
        ("GZIP", True),
        ("br, gzip;q=0.5", True),
        ("gzip;q=1", True),
        ("gzip; q=0", False),
        ("gzip;q=0.000", False),
        ("br, *", False),
        ("notgzip", False),
        ("", False),
    ],
)
def test_gzip_is_sent_to_those_only_who_say_that_they_take_it(header: str, takes: bool) -> None:
    assert takes_gzip({"accept-encoding": header}) is takes
    assert packed(b"x" * 9999) == packed(b"x" * 9999)
