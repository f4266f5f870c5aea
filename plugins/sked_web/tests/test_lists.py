"""Lists and single objects: the documents of `-o json`, in pages that stay in place, with ETags that tell the truth."""

from __future__ import annotations

import json

import httpx
from click.testing import CliRunner

from sked_core.interfaces.store import Put
from sked_core.model import keys
from sked_core.model.codec import encode
from sked_core.model.types import Failure
from sked_core.surface.cli import cli

from .conftest import Web, tasks_of


def test_lists_say_what_the_command_line_says(web: Web, api: httpx.Client) -> None:
    web.apply()
    web.host("h0", "h1", "h2")
    tasks = tasks_of(12)
    web.issue(*tasks)
    web.store.commit([Put(keys.failure(tasks[3].id), encode(Failure(host=tasks[3].host, reason="exit code 1")))])
    web.settled()
    for name in ("tasks", "services", "clusters", "hosts"):
        ran = CliRunner().invoke(cli, ["--backend", web.sked.settings.backend.value, name, "-o", "json"])
        answer = api.get(f"/v1/{name}")
        assert answer.status_code == 200, answer.text
        assert answer.headers["content-type"] == "application/json"
        found = answer.json()
        assert found.pop("next") == ""
        assert found.pop("notices") == []
        assert found == json.loads(ran.stdout)


def test_single_objects_are_lists_of_one(web: Web, api: httpx.Client) -> None:
    web.apply()
    web.host("h0", "h1", "h2")
    web.issue(*tasks_of(2))
    for path, kind in (
        ("/v1/tasks/default-web-1-0", "Task"),
        ("/v1/services/web", "Service"),
        ("/v1/clusters/default", "Cluster"),
        ("/v1/hosts/h1", "Host"),
        ("/v1/task-definitions/web/2", "TaskDefinition"),
    ):
        answer = api.get(path)
        assert (answer.status_code, answer.json()["kind"], len(answer.json()["items"])) == (200, kind, 1), answer.text
    assert [one["version"] for one in api.get("/v1/task-definitions/web").json()["items"]] == [1, 2]
    assert [one["used_by"] for one in api.get("/v1/task-definitions").json()["items"]] == [["web"], []]


def test_what_is_not_there_is_not_found_with_what_is_like_it(web: Web, api: httpx.Client) -> None:
    web.apply()
    web.host("h10")
    web.issue(*tasks_of(1))
    for path in ("/v1/services/wbe", "/v1/tasks/default-web-1-7", "/v1/clusters/defalt", "/v1/hosts/h11"):
        answer = api.get(path)
        assert answer.status_code == 404
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.json()["hint"].startswith("did you mean"), answer.text
    assert api.get("/v1/task-definitions/web/9").status_code == 404
    assert api.get("/v1/services/Web!").status_code == 400


def test_pages_have_each_task_that_stays_exactly_once_while_others_come_and_go(web: Web, api: httpx.Client) -> None:
    web.apply()
    tasks = tasks_of(30)
    web.issue(*tasks)
    seen: list[str] = []
    cursor, rounds = "", 0
    while True:
        answer = api.get("/v1/tasks", params={"limit": 7, "cursor": cursor}).json()
        seen += [one["id"] for one in answer["items"]]
        cursor = answer["next"]
        if not cursor:
            break
        web.withdraw(tasks[rounds], tasks[29 - rounds])
        web.issue(*tasks_of(31 + rounds)[30 + rounds :])
        rounds += 1
    staying = {task.id for task in tasks[rounds : 30 - rounds]}
    assert staying <= set(seen)
    assert len(seen) == len(set(seen))
    assert rounds == 4


def test_filters_are_those_of_the_command_line(web: Web, api: httpx.Client) -> None:
    web.apply()
    web.issue(*tasks_of(9))
    assert {one["host"] for one in api.get("/v1/tasks?host=h1").json()["items"]} == {"h1"}
    assert len(api.get("/v1/tasks?service=web&cluster=default&limit=1000").json()["items"]) == 9
    assert api.get("/v1/tasks?service=other").json()["items"] == []
    wrong = api.get("/v1/tasks?hots=h1")
    assert (wrong.status_code, wrong.json()["detail"]) == (400, '"hots" can\'t be asked for here, did you mean "host"?')


def test_an_unchanged_list_is_not_sent_again(web: Web, api: httpx.Client) -> None:
    web.apply()
    web.issue(*tasks_of(3))
    first = api.get("/v1/tasks")
    tag = first.headers["etag"]
    same = api.get("/v1/tasks", headers={"if-none-match": tag})
    assert (same.status_code, same.content, same.headers["etag"]) == (304, b"", tag)
    web.issue(*tasks_of(4)[3:])
    other = api.get("/v1/tasks", headers={"if-none-match": tag})
    assert (other.status_code, len(other.json()["items"])) == (200, 4)
    assert other.headers["etag"] != tag
    services = api.get("/v1/task-definitions").headers["etag"]
    web.issue(*tasks_of(5)[4:])
    assert api.get("/v1/task-definitions", headers={"if-none-match": services}).status_code == 304


def test_a_record_that_cannot_be_read_is_named_in_the_notices(web: Web, api: httpx.Client) -> None:
    web.apply()
    web.store.commit([Put(keys.service("broken"), b'{"name": 7}')])
    web.settled()
    found = api.get("/v1/services").json()
    assert [one["name"] for one in found["items"]] == ["web"]
    assert "config/services/broken is left out" in found["notices"][0]
