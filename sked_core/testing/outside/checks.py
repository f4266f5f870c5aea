"""What the kit of outside schedulers checks, one function each. Each begins by what it needs: any can be run alone."""

from __future__ import annotations

import json
from collections.abc import Callable

import msgspec

from sked_core.errors import Conflict
from sked_core.interfaces.store import Check, Delete, Op, Put, Revision
from sked_core.model import keys
from sked_core.model.codec import encode, patch
from sked_core.testing.outside.bench import MIN, Bench

NOT_ON_C = 'case "$SKED_HOST" in c-*) exit 1;; esac; exec sleep 1000'
NOTE = "whatever its owner likes"
"""Of a field that Sked does not know, and that has to be kept."""


def registers_itself(bench: Bench) -> None:
    """A process registers the name that it places by, bound to its lease, and `sked apply` has no warning then."""
    bench.running()
    bench.until("something of the name is registered below scheduling/schedulers/", bench.presences)
    assert all(bench.presences().values()), (
        "what is registered has to be bound to a lease: else it outlives the process"
    )
    said = bench.apply(bench.version, desired=MIN, min=MIN)
    assert "no process is there" not in said, said


def places_and_writes_whole_records(bench: Bench) -> None:
    """Tasks are spread, carry the whole definition, fields that nobody knows included, and run."""
    bench.settled(2)
    bench.declare("noted", desired=2, definition={"note": NOTE})
    bench.until("two tasks are well", bench.well(2, "noted"))
    assert len({one.host for one in bench.tasks("noted")}) == 2, f"two tasks, three hosts{bench.told()}"
    found = bench.store.read(keys.STATE).entries
    for one in bench.tasks("noted"):
        both = keys.task(one.id), keys.host_task(one.host, one.id)
        assert set(both) <= set(found), f"{one.id} does not stand under its two keys{bench.told()}"
        first, second = (found[key].value for key in both)
        assert json.loads(first) == json.loads(second), f"the two keys of {one.id} differ"
        assert json.loads(first)["task_definition"].get("note") == NOTE, f"{one.id}: the definition is not whole"
    assert keys.changed("noted") in bench.store.read(keys.CHANGED).entries, "no marker below scheduling/changed/"
    bench.until("its status counts them", lambda: bench.status("noted").get("issued") == 2)
    bench.no_findings()


def leaves_a_locked_service_alone(bench: Bench) -> None:
    """While another holds the lock of a service, nothing of it is written."""
    bench.settled(2)
    lock, lease = keys.service_lock("far"), bench.store.grant(60.0)
    wanted = keys.service("far")
    bench.until("the lock is free", lambda: _committed(bench, [Check(lock, Revision(0)), Put(lock, b"the kit", lease)]))
    before = _below(bench, keys.STATE)
    bench.store.commit([Put(wanted, patch(bench.store.read(wanted).entries[wanted].value, desired=5))])
    for count in (1, 2):  # whoever has brought these about has looked at the other one since
        bench.declare("beside", desired=count, definition={"provide_port": False})
        bench.until("another service is placed meanwhile", bench.well(count, "beside"))
    now = {key: one for key, one in _below(bench, keys.STATE).items() if "-beside-" not in key}
    assert now == before, f"tasks were written past the lock of another{bench.told()}"
    lease.revoke()
    bench.until("it goes on once the lock is free", bench.well(5))
    bench.forget("beside")
    bench.until("the other one is gone", lambda: not bench.tasks("beside"))


def goes_on_where_a_killed_one_stopped(bench: Bench) -> None:
    """One process is killed (SIGKILL) in the midst of its work; two others finish it."""
    bench.settled(2)
    lock, before = keys.service_lock("far"), {one.id for one in bench.tasks()}
    bench.want(6)
    while not (lock in bench.store.read(lock).entries or {one.id for one in bench.tasks()} != before):
        bench.judge()
    for one in bench.schedulers:
        one.kill()
        one.wait(60)
    for lease in bench.presences().values():
        bench.end_lease(lease)  # as the store does by itself, some time later
    bench.start(), bench.start()
    bench.until("six tasks are well", bench.well(6))
    assert bench.hosts() == {"a", "b", "c"}, f"they are not spread{bench.told()}"


def takes_another_lease(bench: Bench) -> None:
    """Processes whose lease has ended take another one, register anew and go on."""
    bench.settled(2)
    ended = set(bench.until("it is registered", bench.presences).values())
    for lease in ended:
        bench.end_lease(lease)
    bench.until("it is registered with another lease", lambda: set(bench.presences().values()) - ended)
    bench.want(3)
    bench.until("it places", bench.well(3))


def withdraws_what_is_too_much(bench: Bench) -> None:
    """Fewer wanted: the agents stop as many as are too much, and the others run on."""
    bench.settled(4)
    before = bench.processes()
    bench.want(2)
    bench.until("two tasks are well", bench.well(2))
    bench.until("no more run", lambda: set(bench.processes()) == {one.id for one in bench.tasks()})
    assert all(set(pids) <= set(before.get(one, ())) for one, pids in bench.processes().items()), "these ran on"


def leaves_a_draining_host(bench: Bench) -> None:
    """What runs on a host that is drained is replaced elsewhere, and nothing goes there; nor to a cordoned one."""
    bench.settled(3)
    left = min(bench.hosts())
    bench.mark_host(left, "draining")
    bench.until("three are well elsewhere", lambda: left not in bench.hosts() and bench.well(3)())
    bench.mark_host(left, "cordoned")
    bench.want(5)
    bench.until("five are well", bench.well(5))
    assert left not in bench.hosts(), f"tasks were placed on a cordoned host{bench.told()}"
    bench.mark_host(left, "")


def replaces_what_a_lost_host_had(bench: Bench) -> None:
    """What a host had whose agent is gone for longer than LOST_AFTER runs elsewhere; once it is back, no copy does."""
    bench.settled(3)
    lost = min(bench.hosts())
    bench.agents[lost].terminate()
    bench.agents[lost].wait(60)
    bench.until("three, elsewhere", lambda: lost not in bench.hosts() and len(bench.tasks()) == 3)
    bench.start_agent(lost)
    once = dict.fromkeys((one.id for one in bench.tasks()), 1)
    bench.until("no copies run", lambda: {one: len(pids) for one, pids in bench.processes().items()} == once)
    bench.until("three are well", bench.well(3))


def restarts(bench: Bench) -> None:
    """`sked restart SERVICE` replaces every task, and the list of moves is gone then."""
    bench.settled(3)
    before = {pid for pids in bench.processes().values() for pid in pids}
    bench.sked("restart", "far")
    bench.until("all that was asked for is done", lambda: not bench.store.read(keys.MOVES).entries and bench.well(3)())
    assert not before & {pid for pids in bench.processes().values() for pid in pids}, "some were not restarted"


def rolls_out_and_avoids_who_rejects(bench: Bench) -> None:
    """Another version replaces the former one; what host c rejects is placed elsewhere; the roll-out is ended."""
    bench.settled(3)
    bench.version += 1
    bench.apply(bench.version, desired=3, min=MIN, start=NOT_ON_C, definition={"max_attempts": 1})
    bench.until(
        "the version is there", lambda: {one.task_definition.version for one in bench.tasks()} == {bench.version}
    )
    bench.until("three are well, none of them on c", lambda: bench.hosts() == {"a", "b"} and bench.well(3)())
    bench.until("the roll-out has ended", lambda: not bench.store.read(keys.ROLLOUTS).entries)
    assert "succeeded" in bench.sked("rollout", "history", "far")
    assert "task.rejected" in bench.sked("events", "-o", "json"), "c was never tried: the check has shown nothing"


def says_why_tasks_wait(bench: Bench) -> None:
    """What no host has room for waits, and its status says of each host why."""
    bench.settled(2)
    bench.declare("big", desired=1, definition={"memory": 10**9})
    bench.until("it says that one waits", lambda: bench.status("big").get("waiting") == 1)
    said = bench.status("big")["hosts"]
    assert set(said) == {bench.host(one) for one in "abc"} and all(said.values()), f"no reasons: {said}"
    assert not bench.tasks("big"), "it was placed where there is no room"


def leaves_tasks_of_others_alone(bench: Bench) -> None:
    """Tasks of Sked's own schedulers, and those that people have issued by hand, are not touched."""
    bench.declare("near", desired=2, scheduler="default")
    bench.until("Sked has placed its own", bench.well(2, "near"))
    (one,) = bench.tasks("near")[:1]
    by_hand = msgspec.structs.replace(one, service="hand", instance=0, port=9)
    issued = (keys.task(by_hand.id), keys.host_task(by_hand.host, by_hand.id))
    bench.store.commit([Put(key, encode(by_hand)) for key in issued])
    before = {one.id for one in bench.tasks("near")}
    for count in (3, 2):  # whoever has brought these about has looked
        bench.settled(count)
    assert {one.id for one in bench.tasks("near")} == before and len(bench.tasks("hand")) == 1, "theirs have changed"
    bench.store.commit([Delete(key) for key in issued])
    bench.until("what was issued by hand has stopped", lambda: not bench.processes("hand"))


def _committed(bench: Bench, ops: list[Op]) -> bool:
    try:
        bench.store.commit(ops)
    except Conflict:
        return False
    return True


def _below(bench: Bench, prefix: str) -> dict[str, bytes]:
    return {key: one.value for key, one in bench.store.read(prefix).entries.items()}


def takes_no_word_from_strange_names(bench: Bench) -> None:
    """Names that no service can have say nothing to a shell, a URL or JSON: whoever may declare gets no further."""
    strange = ('a",0],["put","taken","1"],["delete","b', "a$(touch${IFS}taken)b", "a?recurse=&b", "a'b")
    record = json.dumps({"scheduler": bench.name, "desired": 0, "min": 0, "max": 0}).encode()
    known = [f"{keys.SERVICES}{one}" for one in strange]
    bench.store.commit([Put(key, record) for key in (*known, keys.service("plain"))])
    bench.running()
    said = "status/services/plain"
    bench.until("the one that has a name was looked at", lambda: said in bench.store.read("status/").entries)
    bench.settled(2)
    assert "taken" not in bench.store.read("").entries and not list(bench.folder.rglob("taken*")), "it obeyed a name"
    written = [key for key in bench.store.read("").entries if any(one in key for one in strange)]
    assert sorted(written) == sorted(known), f"it wrote under a name that can't be: {written}"
    bench.store.commit([Delete(key) for key in (*known, "config/services/plain", said)])


def withdraws_what_is_deleted(bench: Bench) -> None:
    """A deleted service is withdrawn, and nothing is left of it: no task, no status, no roll-out."""
    bench.settled(2)
    ended = keys.rollout_history("far")
    bench.store.commit([Put(f"{ended}1", b'{"number": 1, "result": "succeeded"}')])
    with bench.alone():
        bench.sked("delete", "service/far", "--cascade", "-y")
        bench.until("its tasks are gone", lambda: not bench.tasks())
        bench.until("its status is gone", lambda: keys.service_status("far") not in bench.store.read("status/").entries)
        assert not bench.store.read(ended).entries, "its roll-outs are left: those of the next one of its name, then"
    bench.until("nothing runs", lambda: not bench.processes())
    bench.no_findings()


CHECKS: dict[str, Callable[[Bench], None]] = {
    one.__name__: one
    for one in (
        registers_itself,
        places_and_writes_whole_records,
        goes_on_where_a_killed_one_stopped,
        leaves_a_locked_service_alone,
        takes_another_lease,
        withdraws_what_is_too_much,
        leaves_a_draining_host,
        replaces_what_a_lost_host_had,
        restarts,
        rolls_out_and_avoids_who_rejects,
        says_why_tasks_wait,
        leaves_tasks_of_others_alone,
        takes_no_word_from_strange_names,
        withdraws_what_is_deleted,
    )
}
