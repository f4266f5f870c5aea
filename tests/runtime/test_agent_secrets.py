"""Secrets of an agent's tasks: read at each start, given beside the spec, and in nothing that leaves the agent."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from runtime.conftest import HOST, Solo
from sked_core.errors import Denied, ExecutorError, NotFound, Unavailable
from sked_core.model import keys
from sked_core.model.codec import digest
from sked_core.model.policy import ChecksGate, Policy, Secrets, SetupGate
from sked_core.model.types import Task
from sked_core.runtime.agent.task_secrets import WITHHELD, SecretSource
from sked_core.runtime.secrets.masking import Masks
from sked_core.testing.builders import a_check, a_container, a_definition, a_task
from sked_core.testing.fakes import FakeContainer, FakeSecrets

CANARY = "s3cr3t-canary-7fe1"
NEWER = "an0ther-canary-91aa"
LOOK = 60


@pytest.fixture
def kept(solo: Solo) -> FakeSecrets:
    """A provider whose secrets every task of the host may have."""
    provider = FakeSecrets(db=CANARY)
    solo.secrets = SecretSource({"file": provider})
    secrets = Secrets(allow={"*": ["**"]}, look_seconds=LOOK)
    solo.settings["policy"] = Policy(executors=["bash"], checks=ChecksGate(targets=["*"]), secrets=secrets)
    solo.crash()
    return provider


def asking(instance: int = 0, *, service: str = "web", more: dict[str, Any] | None = None, **fields: Any) -> Task:
    """A task with the secret ``db``. ``more``: of the reference."""
    setup, checks = fields.pop("setup", None), fields.pop("checks", None)
    env = {"DB_PASSWORD": {"secret": "db", **(more or {})}, "LOG": "info"}
    container = a_container(executor={"start": "x", "env": env}, setup=setup, checks=checks)
    return a_task(HOST, instance, a_definition(containers=[container], **fields), service=service)


def only(solo: Solo) -> FakeContainer:
    (found,) = solo.engine.containers.values()
    return found


def everything(solo: Solo) -> bytes:
    """All that stands in the store and in the agent's folder."""
    stored = b"".join(entry.value for entry in solo.memory.read("").entries.values())
    files = b"".join(path.read_bytes() for path in solo.folder.rglob("*") if path.is_file())
    return stored + files + "\n".join(map(str, solo.events)).encode()


def test_a_task_is_given_the_value_and_the_executor_no_reference(solo: Solo, kept: FakeSecrets) -> None:
    task = asking()
    solo.issue(task)
    solo.pass_time(1)
    made = only(solo)
    assert made.env["DB_PASSWORD"] == CANARY
    assert made.env["SKED_TASK_ID"] == task.id
    assert made.spec == {"start": "x", "env": {"LOG": "info"}}
    assert made.handle.digest == digest(task)
    assert made.task == task
    solo.pass_time(120)
    assert solo.engine.starts == [task.id]
    assert CANARY.encode() not in everything(solo)


def test_it_is_read_anew_for_each_start(solo: Solo, kept: FakeSecrets) -> None:
    task = asking()
    solo.issue(task)
    solo.pass_time(10)
    kept.values["db"] = NEWER
    solo.engine.kill(task.id)
    solo.pass_time(10)
    assert only(solo).env["DB_PASSWORD"] == NEWER
    assert solo.engine.starts == [task.id] * 2


def test_two_containers_have_one_value_even_if_it_changes_meanwhile(solo: Solo, kept: FakeSecrets) -> None:
    env = {"A": {"secret": "db"}, "B": {"secret": "db"}}
    both = [a_container(name, executor={"start": "x", "env": env}) for name in ("one", "two")]
    solo.issue(a_task(HOST, 0, a_definition(containers=both)))
    solo.pass_time(1)
    assert [one.env["A"] + one.env["B"] for one in solo.engine.containers.values()] == [CANARY * 2] * 2
    assert kept.reads == ["db"]


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (NotFound("there is no such file"), "secret db of file: there is no such file"),
        (Denied("everybody can read it"), "secret db of file: everybody can read it"),
    ],
)
def test_one_that_is_not_there_or_not_given_rejects_the_task(
    solo: Solo, kept: FakeSecrets, error: Exception, reason: str
) -> None:
    kept.down = error
    task = asking()
    solo.issue(task)
    solo.pass_time(1)
    assert (solo.mine(task) or {})["reject_reason"] == reason
    assert solo.engine.starts == []


def test_a_provider_that_is_away_is_asked_again_later(solo: Solo, kept: FakeSecrets) -> None:
    kept.down = Unavailable("it does not answer")
    task = asking()
    solo.issue(task)
    solo.pass_time(5)
    assert not (solo.mine(task) or {})["rejected"]
    (failed, *_) = solo.told("task.failed")
    assert failed.why == "secret db of file can't be read now: it does not answer"
    assert (solo.raw(keys.failure(task.id)) or {})["reason"] == failed.why
    kept.down = None
    solo.pass_time(60)
    assert only(solo).env["DB_PASSWORD"] == CANARY


def test_what_a_strange_provider_raises_or_gives_is_shown_nowhere(solo: Solo, kept: FakeSecrets, caplog: Any) -> None:
    caplog.set_level("DEBUG")
    kept.down = RuntimeError(f"can't parse {CANARY}")
    solo.issue(asking())
    solo.pass_time(5)
    assert solo.told("task.failed")[0].why == "secret db of file can't be read now: provider file failed: RuntimeError"
    kept.down = None
    kept.values["db"] = 12345678  # type: ignore[assignment]
    solo.pass_time(60)
    assert solo.told("task.failed")[-1].why.endswith("provider file gave no secret")
    assert CANARY.encode() not in everything(solo)
    assert CANARY not in caplog.text


@pytest.mark.parametrize(
    ("value", "reason"),
    [("abc", "fewer than 4 characters"), ("    \n", "fewer than 4 characters"), ("abcd\0efg", "fits into no variable")],
)
def test_what_could_not_be_masked_or_set_rejects_the_task(
    solo: Solo, kept: FakeSecrets, value: str, reason: str
) -> None:
    kept.values["db"] = value
    task = asking()
    solo.issue(task)
    solo.pass_time(1)
    assert reason in (solo.mine(task) or {})["reject_reason"]


def test_without_the_policy_s_word_nothing_is_even_read(solo: Solo, kept: FakeSecrets) -> None:
    solo.settings["policy"] = Policy(executors=["bash"], secrets=Secrets(allow={"default/api": ["db"]}))
    solo.crash()
    other, task = asking(service="api"), asking()
    solo.issue(task)
    solo.pass_time(1)
    assert (solo.mine(task) or {})["reject_reason"].startswith("policy secrets.allow: tasks of default/web may not")
    assert kept.reads == []
    solo.issue(other)
    solo.pass_time(1)
    assert only(solo).env["DB_PASSWORD"] == CANARY


@pytest.mark.parametrize("ref", [{"secret": "../db"}, {"secret": "db", "provider": "x:y"}, {"secrets": "db"}])
def test_a_reference_that_apply_would_not_take_is_rejected_from_the_store_too(
    solo: Solo, kept: FakeSecrets, ref: dict[str, str]
) -> None:
    task = a_task(HOST, 0, a_definition(containers=[a_container(executor={"env": {"A": ref}})]))
    solo.issue(task)
    solo.pass_time(1)
    assert (solo.mine(task) or {})["reject_reason"].startswith("container web: env.A")
    assert kept.reads == []


def test_what_the_task_says_of_it_is_masked_in_all_that_is_kept(solo: Solo, kept: FakeSecrets) -> None:
    kept.values["db"] = 'line one of it\n"two" & more'
    task = asking(max_attempts=2)
    solo.issue(task)
    solo.pass_time(1)
    long = "x" * 495 + "line one of it"
    said = ["got line one of it.", long, '{"pw": "\\"two\\" & more"}', "?pw=%22two%22%20%26%20more", "harmless"]
    for _ in range(2):
        solo.engine.say(task.id, *said)
        solo.engine.kill(task.id, code=1)
        solo.pass_time(30)
    assert (solo.mine(task) or {})["rejected"]
    kept_text = everything(solo).decode()
    for part in ("line one", '"two', "two\\", "%22two"):
        assert part not in kept_text
    assert "got ***." in kept_text
    assert "harmless" in kept_text


def test_what_an_executor_says_of_it_is_masked(solo: Solo, kept: FakeSecrets, caplog: Any) -> None:
    caplog.set_level("DEBUG")

    def fail(task: Task, container: Any) -> None:
        try:
            raise ValueError(f"bad value {CANARY}")
        except ValueError as cause:
            raise raised(f"can't start with {CANARY}") from cause

    solo.engine.before_start = fail
    for raised in (ExecutorError, RuntimeError):
        solo.issue(asking(service=raised.__name__.lower()))
        solo.pass_time(3)
    said = {one.why for one in solo.told("task.failed")}
    assert said == {"can't start with ***", "executor bash of fakes failed: RuntimeError: can't start with ***"}
    assert CANARY.encode() not in everything(solo)
    assert CANARY not in caplog.text


def test_setup_has_it_and_what_setup_says_is_masked(solo: Solo, kept: FakeSecrets, tmp_path: Path) -> None:
    setup = [f'printf %s "$DB_PASSWORD" > {tmp_path}/had', 'echo "it is $DB_PASSWORD"; false']
    solo.settings["policy"] = Policy(
        executors=["bash"], secrets=Secrets(allow={"*": ["**"]}), setup=SetupGate(allow=True, root=True)
    )
    solo.crash()
    solo.issue(asking(setup=setup, max_attempts=1))
    solo.pass_time(1)
    assert (tmp_path / "had").read_text() == CANARY
    (tmp_path / "had").unlink()
    assert "it is ***" in solo.told("task.failed")[0].why
    assert CANARY.encode() not in everything(solo)


def test_what_checks_say_of_it_is_masked_even_where_it_was_cut(solo: Solo, kept: FakeSecrets) -> None:
    task = asking(checks=[a_check()], grace_period="5s")
    solo.issue(task)
    solo.pass_time(1)
    solo.health.say(task.id, healthy=True)
    solo.pass_time(1)
    solo.health.say(task.id, healthy=False, output=f"500: {CANARY}, and {CANARY[:9]}")
    solo.pass_time(10)
    assert solo.told("task.unhealthy")[0].why == "500: ***, and ***"
    assert b"s3cr" not in everything(solo)


class TestAnotherAgent:
    """One that takes over what runs, and has given nothing itself."""

    def test_masks_what_has_the_version_that_was_given(self, solo: Solo, kept: FakeSecrets) -> None:
        task = asking()
        solo.issue(task)
        solo.pass_time(1)
        solo.secrets = SecretSource({"file": kept}, Masks())
        solo.crash()
        solo.pass_time(3)
        assert solo.engine.starts == [task.id]
        solo.engine.say(task.id, f"pw {CANARY}", "harmless")
        solo.engine.kill(task.id)
        solo.pass_time(3)
        assert "pw ***" in everything(solo).decode()
        assert CANARY.encode() not in everything(solo)

    @pytest.mark.parametrize("lost", ["the version", "the provider", "what was noted"])
    def test_keeps_nothing_of_what_it_can_t_mask(self, solo: Solo, kept: FakeSecrets, lost: str) -> None:
        task = asking()
        solo.issue(task)
        solo.pass_time(1)
        match lost:
            case "the version":
                kept.values["db"], kept.versions["db"] = NEWER, "2"
            case "the provider":
                kept.down = Unavailable("away")
            case "what was noted":
                (solo.folder / "state" / "secrets" / f"{task.id}.json").unlink()
        solo.secrets = SecretSource({"file": kept}, Masks())
        solo.crash()
        solo.pass_time(3)
        solo.engine.say(task.id, f"pw {CANARY}", "harmless")
        solo.engine.kill(task.id)
        solo.pass_time(3)
        text = everything(solo).decode()
        assert WITHHELD in text
        assert CANARY not in text
        assert "harmless" not in text

    def test_forgets_the_versions_of_a_task_that_is_gone(self, solo: Solo, kept: FakeSecrets) -> None:
        task = asking()
        solo.issue(task)
        solo.pass_time(1)
        assert list((solo.folder / "state" / "secrets").iterdir())
        solo.withdraw(task)
        solo.pass_time(5)
        assert list((solo.folder / "state" / "secrets").iterdir()) == []


class TestRotation:
    def rotating(self, *instances: int, **fields: Any) -> list[Task]:
        return [asking(one, more={"rotate": "restart"}, **fields) for one in instances or (0,)]

    def change(self, kept: FakeSecrets) -> None:
        kept.values["db"], kept.versions["db"] = NEWER, "2"

    def test_a_new_version_restarts_the_task_in_place_and_writes_no_record(self, solo: Solo, kept: FakeSecrets) -> None:
        (task,) = self.rotating()
        solo.issue(task)
        solo.pass_time(LOOK * 2)
        before = solo.memory.read(keys.host_task(HOST, task.id)).entries
        reads = len(kept.reads)
        self.change(kept)
        solo.pass_time(LOOK * 2)
        assert only(solo).env["DB_PASSWORD"] == NEWER
        assert (solo.engine.starts, solo.engine.stops) == ([task.id] * 2, [task.id])
        (told,) = solo.told("task.secret_rotated")
        assert told.why == "secret db of file has a new version"
        assert solo.memory.read(keys.host_task(HOST, task.id)).entries == before
        solo.pass_time(LOOK * 5)
        assert len(solo.engine.starts) == 2
        assert len(kept.reads) - reads <= 12, "looked more often than asked to"

    def test_one_that_did_not_ask_runs_on(self, solo: Solo, kept: FakeSecrets) -> None:
        solo.issue(asking())
        solo.pass_time(LOOK)
        self.change(kept)
        solo.pass_time(LOOK * 3)
        assert len(solo.engine.starts) == 1
        assert only(solo).env["DB_PASSWORD"] == CANARY

    def test_a_secret_is_read_once_however_many_tasks_have_it(self, solo: Solo, kept: FakeSecrets) -> None:
        solo.issue(*self.rotating(*range(20)))
        solo.pass_time(5)
        kept.reads.clear()
        solo.pass_time(LOOK * 1.3)
        assert 1 <= len(kept.reads) <= 2

    def test_tasks_of_one_service_go_one_after_another(self, solo: Solo, kept: FakeSecrets) -> None:
        tasks = self.rotating(0, 1, 2, checks=[a_check()])
        solo.issue(*tasks)
        solo.pass_time(90)
        self.change(kept)
        fewest = 3
        for _ in range(LOOK * 4):
            solo.clock.advance(0.5)
            solo.settle()
            fewest = min(fewest, len(solo.engine.running()))
        assert fewest >= 2
        assert [one.env["DB_PASSWORD"] for one in solo.engine.containers.values()] == [NEWER] * 3
        assert len(solo.engine.starts) == 6

    def test_a_new_value_that_breaks_a_task_breaks_no_other(self, solo: Solo, kept: FakeSecrets) -> None:
        tasks = self.rotating(0, 1, 2, checks=[a_check()], grace_period="1h")
        solo.issue(*tasks)
        solo.pass_time(90)
        self.change(kept)

        def sick(task: Task, container: Any) -> None:
            solo.health.say(task.id, healthy=False, output="wrong password")

        solo.engine.after_start = sick
        solo.pass_time(LOOK * 5)
        assert sorted(one.env["DB_PASSWORD"] for one in solo.engine.containers.values()) == [NEWER, CANARY, CANARY]

    def test_a_provider_that_is_away_rotates_nothing_and_stops_nothing(self, solo: Solo, kept: FakeSecrets) -> None:
        (task,) = self.rotating()
        solo.issue(task)
        solo.pass_time(LOOK)
        for error in (Unavailable("away"), NotFound("gone"), Denied("sealed"), RuntimeError("bug")):
            kept.down = error
            solo.pass_time(LOOK * 2)
        assert (solo.engine.starts, solo.engine.stops) == ([task.id], [])
        kept.down = None
        self.change(kept)
        solo.pass_time(LOOK * 2)
        assert only(solo).env["DB_PASSWORD"] == NEWER

    def test_one_that_goes_away_in_the_middle_leaves_the_task_with_what_was_seen(
        self, solo: Solo, kept: FakeSecrets
    ) -> None:
        (task,) = self.rotating()
        solo.issue(task)
        solo.pass_time(LOOK)
        self.change(kept)
        read: Callable[[str, str], Any] = kept.read

        def once(name: str, key: str) -> Any:
            found = read(name, key)
            kept.down = Unavailable("away")
            return found

        kept.read = once  # type: ignore[method-assign]
        solo.pass_time(LOOK * 2)
        assert only(solo).env["DB_PASSWORD"] == NEWER
        assert solo.engine.starts == [task.id] * 2

    def test_an_agent_that_was_away_when_it_changed_restarts_it(self, solo: Solo, kept: FakeSecrets) -> None:
        (task,) = self.rotating()
        solo.issue(task)
        solo.pass_time(LOOK)
        self.change(kept)
        solo.secrets = SecretSource({"file": kept}, Masks())
        solo.crash()
        solo.pass_time(5)
        assert only(solo).env["DB_PASSWORD"] == NEWER
        assert solo.engine.starts == [task.id] * 2

    def test_a_shutdown_delay_is_kept(self, solo: Solo, kept: FakeSecrets) -> None:
        (task,) = self.rotating(shutdown_delay="20s")
        solo.issue(task)
        solo.pass_time(LOOK)
        self.change(kept)
        left_at = None
        for _ in range(LOOK * 3):
            solo.clock.advance(1)
            solo.settle()
            if left_at is None and task.id not in solo.health.tasks:
                left_at = solo.clock.monotonic()
            if left_at is not None and solo.clock.monotonic() < left_at + 19:
                assert len(solo.engine.starts) == 1
        assert left_at is not None
        assert solo.engine.starts == [task.id] * 2
        assert task.id in solo.health.tasks
