"""What is said of a host is true, and what is said to help does help, and no less does."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

from hypothesis import event, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace as with_

from logic.cases import SPREAD, Case, cases, ports_of
from sked_core.logic.explanation import Step, Verdict, explain, less, nearest
from sked_core.logic.fleet import HostView
from sked_core.model.ports import counted, port_name
from sked_core.model.types import AtMost, Placement
from sked_core.testing.builders import a_definition, a_host, a_task

RULES = ("needs ", "near ", "apart from ", "at most ", "distinct hosts")


def _view(case: Case, host: str) -> HostView:
    return next(view for view in case.hosts if view.host.name == host)


def _here(case: Case, host: str) -> list:
    return [task for task in case.tasks if task.host == host and not task.rejected]


def _true(case: Case, host: str, reason: str) -> bool:
    """Whether the reason holds, found out from the hosts and tasks themselves."""
    view, here, wanted = _view(case, host), _here(case, host), case.definition
    if found := re.fullmatch(r"(memory|cpu|disk): free (\d+) (?:MB|units) < (\d+) (?:MB|units)", reason):
        what = {"memory": "total_memory", "cpu": "total_cpu_units", "disk": "total_disk"}[found[1]]
        total = {"memory": view.host.memory, "cpu": view.host.cpu_units, "disk": view.host.disk}[found[1]]
        free = total - sum(getattr(task.task_definition, what) for task in here)
        return int(found[2]) == max(0, free) and int(found[3]) == getattr(wanted, what) > free
    if " to leave free (" in reason or any(part in reason for part in RULES):
        return True  # tests/logic/test_constrained.py holds these
    held = {task.port for task in here} | {counted(port) for task in here for port in ports_of(task.task_definition)}
    if found := re.fullmatch(r"port (\S+) is held by another task", reason):
        return found[1] in set(map(port_name, held))
    if found := re.fullmatch(r"port (\d+) is in use on the host", reason):
        return int(found[1]) in view.host.ports
    if found := re.fullmatch(r"no free port in (\d+)-(\d+)", reason):
        first, last = int(found[1]), int(found[2])
        return (first, last) == view.host.port_range and set(range(first, last + 1)) <= held | set(view.host.ports)
    if found := re.fullmatch(r"executor (\w+) not available \(not installed, or not in its policy\)", reason):
        return found[1] not in view.host.executors
    return {
        "not among the hosts of cluster default": case.allowed is not None and host not in case.allowed,
        "lost: its agent has not been heard of for too long": view.lost,
        "its agent is not running": not view.alive,
        "cordoned": view.mark == "cordoned",
        "draining": view.mark == "draining",
        case.avoid.get(host, "-"): True,
    }[reason]


@settings(max_examples=80, deadline=None)
@given(cases())
def test_every_host_has_a_verdict_and_every_reason_is_true(case: Case) -> None:
    verdicts = explain(case.question())
    assert sorted(one.host for one in verdicts) == sorted(view.host.name for view in case.hosts)
    for verdict in verdicts:
        assert bool(verdict.reasons) == (verdict.place == 0)
        assert all(_true(case, verdict.host, reason) for reason in verdict.reasons)


@settings(deadline=None)
@given(cases())
def test_the_host_named_first_is_the_one_that_is_chosen(case: Case) -> None:
    question = case.question()
    chosen = list(question.fleet.place(case.scheduler, "default", question.demand, 1, case.allowed, case.avoid))
    assert [one.host for one in explain(question) if one.place == 1] == chosen


def _names(text: str, one: AtMost) -> bool:
    return f'"at most {one.count} per' in text or (one == AtMost(count=1) and '"distinct hosts"' in text)


def _changed(case: Case, host: str, steps: Sequence[Step]) -> Case:
    """The case once somebody has done on ``host`` what ``steps`` say."""
    view, gone = _view(case, host), {name for step in steps for name in step.tasks}
    facts = view.host
    for step in steps:
        if step.resource == "ports":
            first, last = facts.port_range
            facts = with_(facts, port_range=(first, last + 100 * step.amount))
        elif step.kind == "more":
            field = {"memory": "memory", "cpu": "cpu_units", "disk": "disk"}[step.resource]
            facts = with_(facts, **{field: getattr(facts, field) + step.amount})
        elif step.kind == "executor":
            facts = with_(facts, executors=[*facts.executors, step.text.split()[3]])
        elif found := re.fullmatch(r"free port (\d+)", step.text):
            facts = with_(facts, ports=[port for port in facts.ports if port != int(found[1])])
    kinds = {step.kind for step in steps}
    view = HostView(
        facts,
        alive=view.alive or "agent" in kinds,
        lost=view.lost and "agent" not in kinds,
        mark="" if "uncordon" in kinds else view.mark,
    )
    texts = [step.text for step in steps]
    rules = case.placement
    tags = dict(facts.tags)
    for text in texts:
        if found := re.fullmatch(r"tag it (zone|rack)=(?:\w+ or )*(\w+)", text):
            tags[found[1]] = found[2]
        elif text == "tag it rack":
            tags["rack"] = "r9"
        elif text == "tag it zone other than a":
            del tags["zone"]
    view = replace(view, host=with_(facts, tags=tags))
    return replace(
        case,
        hosts=tuple(view if one.host.name == host else one for one in case.hosts),
        tasks=tuple(task for task in case.tasks if task.host != host or task.id not in gone or task.rejected),
        allowed=(*case.allowed, host) if case.allowed is not None and "cluster" in kinds else case.allowed,
        avoid={} if "wait until it is tried again" in texts else case.avoid,
        placement=with_(
            rules,
            distinct_hosts=rules.distinct_hosts and 'give up "distinct hosts" for web' not in texts,
            near=[one for one in rules.near if not any("there first" in text for text in texts)],
            at_most=[one for one in rules.at_most if not any(_names(text, one) for text in texts)],
            apart=[one for one in rules.apart if not any(f'"apart from {one.service}' in text for text in texts)],
        ),
        shunned_by=tuple(one for one in case.shunned_by if not any(f'"{one[0]} wants' in text for text in texts)),
    )


def _takes(case: Case, host: str) -> bool:
    return not case.question().reasons(host)


@settings(max_examples=80, deadline=None)
@given(cases())
def test_whatever_is_said_to_help_does_and_nothing_smaller_does(case: Case) -> None:
    for verdict in explain(case.question()):
        for way in verdict.ways:
            event(" + ".join(step.kind for step in way.steps))
            if any(re.search(r"tag it with|have host", step.text) for step in way.steps):
                continue  # what it should be is for people to say
            assert _takes(_changed(case, verdict.host, way.steps), verdict.host), way
            for step in way.steps:
                without = [one for one in way.steps if one is not step]
                if step.kind == "more":
                    without.append(replace(step, amount=step.amount - 1))
                assert not _takes(_changed(case, verdict.host, without), verdict.host), (way, step)
                for spared in step.tasks if step.kind == "move" and len(step.tasks) > 1 else ():
                    fewer = replace(step, tasks=tuple(name for name in step.tasks if name != spared))
                    assert not _takes(_changed(case, verdict.host, [*without, fewer]), verdict.host), (way, spared)


@settings(deadline=None)
@given(cases(), st.randoms())
def test_in_which_order_hosts_and_tasks_stand_changes_no_word(case: Case, random: object) -> None:
    def shuffled(items: Sequence[object]) -> tuple[object, ...]:
        return tuple(random.sample(list(items), len(items)))  # type: ignore[attr-defined]

    other = replace(case, hosts=shuffled(case.hosts), tasks=shuffled(case.tasks))  # type: ignore[arg-type]
    assert explain(other.question()) == explain(case.question())


def _of(case: Case) -> dict[str, Verdict]:
    return {verdict.host: verdict for verdict in explain(case.question())}


def _ways(verdict: Verdict) -> list[str]:
    return [str(way) for way in verdict.ways]


BIG = a_definition(memory=2048)


def _case(*hosts: HostView, tasks: Sequence = (), definition=BIG, **more: object) -> Case:
    return Case(tuple(hosts), tuple(tasks), definition, 1, None, {}, SPREAD, **more)


def test_a_host_that_is_too_small_needs_what_is_missing_or_a_task_to_leave() -> None:
    small, large = a_definition("cache", memory=500), a_definition("db", memory=1000)
    tasks = [a_task("h1", 0, small, service="cache"), a_task("h1", 0, large, service="db")]
    case = _case(a_host("h1", memory=2600), tasks=tasks)
    verdict = _of(case)["h1"]
    assert verdict.reasons == ("memory: free 1100 MB < 2048 MB",)
    assert _ways(verdict) == ["move default-db-1-0 (memory 1000 MB) away", "give it 948 MB more memory"]
    assert less(case.question(), [verdict]) == ("h1", "memory 1100 MB")


def test_the_smallest_task_that_will_do_is_named() -> None:
    tasks = [a_task("h1", n, a_definition("db", memory=size), service="db") for n, size in enumerate((900, 300, 500))]
    verdict = _of(_case(a_host("h1", memory=3400), tasks=tasks))["h1"]
    assert _ways(verdict)[0] == "move default-db-1-2 (memory 500 MB) away"


def test_the_nearest_change_of_all_is_the_one_that_asks_least_of_people() -> None:
    case = _case(
        a_host("a", memory=100),
        a_host("b", mark="cordoned"),
        a_host("c", executors=[]),
        a_host("d", alive=False, mark="cordoned"),
    )
    found = nearest(explain(case.question()))
    assert found is not None
    assert (found[0], str(found[1])) == ("b", "uncordon it")


def test_what_is_being_stopped_only_has_to_be_waited_for() -> None:
    leaving = a_task("h1", 0, BIG, service="db", scheduled=False)
    assert _ways(_of(_case(a_host("h1", memory=3000), tasks=[leaving]))["h1"])[0] == (
        "wait until default-db-1-0 has stopped"
    )


def test_a_port_is_freed_by_moving_the_task_that_holds_it() -> None:
    holder = a_task("h1", 0, a_definition("db", port=80), service="db", port=80)
    case = _case(a_host("h1"), tasks=[holder], definition=a_definition(port=80))
    verdict = _of(case)["h1"]
    assert "port 80 is held by another task" in verdict.reasons
    assert any("free port 80 and 8080 and 20001 and 53/udp, held by default-db-1-0" in way for way in _ways(verdict))


def test_of_several_values_of_a_tag_those_are_named_that_help_by_themselves() -> None:
    hosts = [a_host(name, tags={"zone": zone}) for name, zone in (("h1", "b"), ("h2", "c"))]
    there = (a_task("h1"),)
    rules = Placement(require=["zone in a, b, d"], at_most=[AtMost(count=1, per="zone")])
    case = _case(*hosts, tasks=there, definition=a_definition(), placement=rules)
    assert _ways(_of(case)["h2"]) == ["tag it zone=a or d"]
    rules = Placement(require=["zone in a, b, d", "zone != a", "zone exists"])
    case = _case(a_host("h2"), definition=a_definition(), placement=rules)
    assert _ways(_of(case)["h2"]) == ["tag it zone=b or d"]
