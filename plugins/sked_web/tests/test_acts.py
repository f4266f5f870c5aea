"""What changes something does what the command does, in the name of whoever asks, and only if it is meant."""

from __future__ import annotations

import httpx

from sked_core.interfaces.store import Put
from sked_core.model import keys
from sked_core.model.codec import decode, encode
from sked_core.model.types import Event, Host, Mark, Service

from .conftest import MANIFEST, Web, tasks_of

YAML = {"content-type": "application/yaml"}


def last_event(web: Web) -> Event:
    entries = web.store.read(keys.EVENTS).entries
    return decode(entries[max(entries)].value, list[Event])[-1]


def test_an_answer_shows_in_the_next_look(web: Web, api: httpx.Client) -> None:
    web.apply()
    for count in range(3, 13):
        assert api.post("/v1/services/web/scale", json={"count": count}).json()["items"][0]["changed"] is True
        assert api.get("/v1/services/web").json()["items"][0]["desired"] == count
        assert api.get("/v1/services").json()["items"][0]["desired"] == count


def test_events_name_who_asked_and_why(guarded: Web) -> None:
    guarded.apply()
    with guarded.client("operate-token-0123456789") as oto:
        assert oto.post("/v1/services/web/scale", json={"count": 7, "why": "sale"}).status_code == 200
    event = last_event(guarded)
    assert (event.what, event.who, event.why, event.after) == ("service.scaled", "oto", "sale", "7")


def test_a_change_of_what_has_changed_meanwhile_is_refused_with_what_changed(web: Web, api: httpx.Client) -> None:
    web.apply()
    seen = api.get("/v1/services/web").headers["etag"]
    web.issue(*tasks_of(2))  # which changes how the service is, but not what is declared
    first = api.post("/v1/services/web/scale", json={"count": 3, "why": "first"}, headers={"if-match": seen})
    assert first.status_code == 200
    second = api.post("/v1/services/web/scale", json={"count": 9, "why": "second"}, headers={"if-match": seen})
    problem = second.json()
    assert (second.status_code, problem["type"]) == (412, "urn:sked:changed")
    assert problem["now"]["desired"] == 3
    assert (problem["events"][-1]["why"], problem["events"][-1]["what"]) == ("first", "service.scaled")
    again = api.post("/v1/services/web/scale", json={"count": 9}, headers={"if-match": second.headers["etag"]})
    assert again.status_code == 200
    wrong = api.post("/v1/services/web/scale", json={"count": 9}, headers={"if-match": "nonsense"})
    assert wrong.status_code == 400


def test_a_condition_holds_at_the_moment_of_the_commit(web: Web, api: httpx.Client, monkeypatch) -> None:
    web.apply()
    seen = api.get("/v1/services/web").headers["etag"]
    commit = type(web.store).commit

    def meanwhile(store, ops):
        monkeypatch.setattr(type(web.store), "commit", commit)
        entry = store.read(keys.service("web")).entries[keys.service("web")]
        other = decode(entry.value, Service)
        commit(store, [Put(keys.service("web"), encode(other).replace(b'"max":3', b'"max":4'))])
        return commit(store, ops)

    monkeypatch.setattr(type(web.store), "commit", meanwhile)
    assert api.post("/v1/services/web/scale", json={"count": 9}, headers={"if-match": seen}).status_code == 412
    assert api.get("/v1/services/web").json()["items"][0]["desired"] == 2


def test_what_has_changed_is_told_whatever_else_stands_in_the_store(web: Web, api: httpx.Client) -> None:
    web.apply()
    seen = api.get("/v1/services/web").headers["etag"]
    odd = [b"[" * 5000, b"[null, 7]", b"\xff", b'{"a": 1}', b"9" * 5000]
    web.store.commit([Put(f"{keys.EVENTS}{number:014}-x-1", value) for number, value in enumerate(odd)])
    web.store.commit([Put(keys.service("web"), b"[" * 5000)])
    web.settled()
    refused = api.post("/v1/services/web/scale", json={"count": 9}, headers={"if-match": seen})
    assert (refused.status_code, refused.json()["now"]) == (412, None), refused.text


def test_the_mark_of_a_host_is_what_if_match_is_about(web: Web, api: httpx.Client) -> None:
    web.host("h1")
    seen = api.get("/v1/hosts/h1").headers["etag"]
    web.store.commit([Put(keys.host("h1"), encode(Host(name="h1", memory=1)))])  # an agent tells of it
    assert api.post("/v1/hosts/h1/cordon", json={}, headers={"if-match": seen}).status_code == 200
    assert api.post("/v1/hosts/h1/drain", json={}, headers={"if-match": seen}).status_code == 412
    entry = web.store.read(keys.mark("h1")).entries[keys.mark("h1")]
    assert decode(entry.value, Mark).state == "cordoned"


def test_a_plan_can_be_applied_exactly_or_not_at_all(web: Web, api: httpx.Client) -> None:
    web.apply()
    wanted = MANIFEST.replace(b"desired: 2", b"desired: 5")
    made = api.post("/v1/plan", content=wanted, headers=YAML).json()["items"][0]
    outcomes = {one["kind"]: one["outcome"] for one in made["objects"]}
    assert (made["pending"], outcomes["service"], outcomes["cluster"]) == (True, "configured", "unchanged")
    assert api.get("/v1/services/web").json()["items"][0]["desired"] == 2
    path = f"/v1/apply?if_revision={made['revision']}"
    assert api.post(path, content=wanted, headers=YAML).status_code == 200
    refused = api.post(path, content=wanted.replace(b"5", b"6"), headers=YAML)
    assert refused.status_code == 409


def test_mistakes_of_manifests_are_all_told_with_their_places(web: Web, api: httpx.Client) -> None:
    bad = b"services:\n  - {name: Web, desird: 4, task_name: web, task_version: 1}\n"
    for path in ("/v1/validate", "/v1/plan", "/v1/apply"):
        answer = api.post(path, content=bad, headers=YAML)
        assert (answer.status_code, answer.json()["type"]) == (422, "urn:sked:invalid-manifest")
        assert {(one["line"], one["path"]) for one in answer.json()["problems"]} >= {(2, "services[0].desird")}
    broken = api.post("/v1/plan", content=b"a: [", headers=YAML)
    assert broken.status_code == 422
    assert api.post("/v1/apply", content=MANIFEST, headers={"content-type": "image/png"}).status_code == 415


def test_acts_say_what_is_wrong_with_them(web: Web, api: httpx.Client) -> None:
    web.apply()
    scale = "/v1/services/web/scale"
    assert api.post(scale, json={"count": -1}).status_code == 400
    assert api.post(scale, json={"count": 1, "whom": "x"}).status_code == 400
    assert (
        api.post(scale, content=b"count=1", headers={"content-type": "application/x-www-form-urlencoded"}).status_code
        == 415
    )
    assert api.post(scale, content=b"[" * 5000, headers={"content-type": "application/json"}).status_code == 400
    assert api.post("/v1/services/wbe/scale", json={"count": 1}).status_code == 404
    assert api.post("/v1/services/web/rollout/pause", json={}).status_code == 404
    assert api.delete("/v1/services/web").status_code == 409
    assert api.put("/v1/services/web").status_code == 405


def test_if_match_of_anything_takes_that_there_is_something(web: Web, api: httpx.Client) -> None:
    web.apply()
    any_of_them = {"if-match": "*"}
    for count in (3, 4):
        done = api.post("/v1/services/web/scale", json={"count": count}, headers=any_of_them)
        assert (done.status_code, done.json()["items"][0]["changed"]) == (200, True)
    web.host("h1")
    unmarked = api.post("/v1/hosts/h1/cordon", json={}, headers=any_of_them)
    assert (unmarked.status_code, unmarked.json()["now"]) == (412, None)
    assert api.post("/v1/hosts/h1/cordon", json={}).status_code == 200
    assert api.post("/v1/hosts/h1/drain", json={}, headers=any_of_them).status_code == 200
