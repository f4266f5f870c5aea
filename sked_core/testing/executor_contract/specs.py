"""Specs: whatever people and strangers write, it is judged in full, purely, and nothing else comes of it."""

from __future__ import annotations

import copy
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sked_core.errors import ExecutorError, Problem, Rejected
from sked_core.model.policy import Policy
from sked_core.model.ports import Binding
from sked_core.model.spec import check_spec
from sked_core.testing.executor_contract.base import KitBase, Rig, need
from sked_core.testing.samples import ExecutorSample, Spec

FAST_SECONDS = 10.0
"""What one look at a spec may take, on any machine."""
ANYTHING = settings(
    max_examples=100,
    deadline=None,
    database=None,
    derandomize=True,
    suppress_health_check=list(HealthCheck),
)
_TEXTS = st.text(st.characters(), max_size=12) | st.sampled_from(
    [
        "",
        " ",
        "\0",
        "\ud800",
        "a\nb",
        "../..",
        "$(touch x)",
        "0",
        "-1",
        "true",
        "x" * 20_000,
        "{}",
        "--",
        "=",
        ":",
    ]
)
_LEAVES = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.sampled_from([2**31, 2**63, 2**64, -(2**63), 10**400])
    | st.floats()
    | _TEXTS
)
JUNK = st.recursive(
    _LEAVES,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(_TEXTS, inner, max_size=4),
    max_leaves=8,
)


class SpecTests(KitBase):
    """What ``validate`` and ``ports`` promise, and what ``start`` does with a spec that is wrong."""

    def test_the_samples_are_judged_as_they_say(self, executor: Any) -> None:
        right = [self.sample.stays, self.sample.unstartable, self.sample.denied]
        right += [self.sample.listens(20000)] if self.sample.listens else []
        right += [self.sample.script("true")] if self.sample.script else []
        for spec in right:
            if spec is not None:
                assert mistakes(executor, spec) == [], f"{spec!r:.200} is called wrong"
        for spec in self.sample.wrong:
            assert mistakes(executor, spec), f"nothing is found wrong with {spec!r:.200}"

    def test_each_of_two_mistakes_is_reported(self, executor: Any) -> None:
        """All at once, when a manifest is applied, and not one after the other."""
        both = {**self.sample.stays, "no-such-field": 1, "another-one": 2}
        found = mistakes(executor, both)
        if not found:
            pytest.skip("this executor takes fields that it does not know")
        assert len(found) >= 2, f"of two unknown fields it tells {found}"

    def test_any_spec_is_judged(self, rig: Rig) -> None:
        one, other = rig.executor(), rig.executor()
        names = sorted(known_fields(self.sample))
        fields = st.sampled_from(names) if names else _TEXTS

        @ANYTHING
        @given(st.dictionaries(fields | _TEXTS, JUNK, max_size=5), st.booleans())
        def judge(junk: dict[str, Any], beside: bool) -> None:
            spec = {**self.sample.stays, **junk} if beside else junk
            before = copy.deepcopy(spec)
            found = judged(one, spec)
            assert same(spec, before), "validate changed the spec that it was given"
            assert judged(one, spec) == found, "the second time it says otherwise"
            assert judged(other, spec) == found, "another instance says otherwise"
            if not [problem for problem in found if not problem.warning]:
                ports_of(one, spec, 20000)

        judge()

    @pytest.mark.parametrize("size", ["deep", "many", "long", "deep and many"])
    def test_a_huge_spec_is_judged_soon(self, executor: Any, size: str) -> None:
        for name in [*known_fields(self.sample), "no-such-field"]:
            for value in huge(size):
                begun = time.monotonic()
                judged(executor, {**self.sample.stays, name: value})
                assert time.monotonic() - begun < FAST_SECONDS, f"{name} that is {size}"

    def test_what_is_wrong_is_not_started_and_leaves_nothing(self, rig: Rig, executor: Any) -> None:
        junk: list[Any] = [None, True, -1, 1.5, 2**70, "", "\0", "\ud800", [], [[]], {}, {"": None}, ["\0", 5]]
        wrong = [*self.sample.wrong, {}, *({name: value} for name in known_fields(self.sample) for value in junk)]
        wrong += [{**self.sample.stays, name: value} for name in known_fields(self.sample) for value in junk]
        refused = [spec for spec in wrong if mistakes(executor, spec)]
        assert refused, "none of the sample's wrong specs is refused"
        for spec in refused:
            try:
                handle = rig.start(executor, rig.task(spec))
            except (Rejected, ExecutorError):
                continue
            executor.stop(handle, 0)
            pytest.fail(f"{spec!r:.200} is refused by validate and started all the same")
        assert executor.recover() == {}
        rig.nothing_left("after starts of specs that are wrong")

    def test_judging_does_nothing_else(self, rig: Rig, executor: Any) -> None:
        """A manifest is judged on any machine: no file, program or network is asked, nothing is written."""
        if self.sample.unseen:
            pytest.skip(f"what {self.sample.type} looks at is not seen: {self.sample.unseen}")
        specs: list[Spec] = [self.sample.stays, {}, *self.sample.wrong]

        def look() -> None:
            for spec in specs:
                judged(executor, spec)
            ports_of(executor, self.sample.stays, 20000)

        look()  # what is imported or compiled once is not counted
        with watched() as done:
            look()
        assert not done, f"validate and ports do more than look at the spec: {done}"
        assert not (rig.folder / "state").exists()

    def test_a_factory_does_nothing_else_either(self, rig: Rig) -> None:
        context = rig.context_of()
        self.sample.make(context).close()
        with watched() as done:
            self.sample.make(context)
        assert not done, f"the factory does more than make an executor: {done}"

    def test_ports_are_told_alike_by_all_and_can_be_bound(self, rig: Rig, executor: Any) -> None:
        specs = [self.sample.stays, *([self.sample.listens(21234)] if self.sample.listens else [])]
        for spec in specs:
            before = copy.deepcopy(dict(spec))
            for port in (0, 1, 20000, 65535):
                found = ports_of(executor, spec, port)
                assert ports_of(executor, spec, port) == found, "the second time it says otherwise"
                assert ports_of(rig.executor(), spec, port) == found, "another instance says otherwise"
            assert spec == before, "ports changed the spec that it was given"
        if self.sample.listens is not None:
            found = ports_of(executor, self.sample.listens(21234), 21234)
            assert 21234 in found, f"a task with port 21234 listens there, but ports are {set(found)}"

    def test_the_type_of_its_specs_takes_the_samples(self, executor: Any) -> None:
        need(self.sample, "spec_type")
        assert issubclass(executor.spec_type, msgspec.Struct)
        assert check_spec(dict(self.sample.stays), executor.spec_type) == []

    def test_what_the_host_does_not_allow_is_rejected(self, rig: Rig) -> None:
        need(self.sample, "policed", "denied")
        executor = rig.executor(policy=Policy(executors=[self.sample.type]))
        task = rig.task(self.sample.denied)
        found = executor.denials(task, task.task_definition.containers[0])
        assert found, "the host's policy says nothing of it, and nothing is denied"
        with pytest.raises(Rejected) as raised:
            rig.start(executor, task)
        assert str(found[0]) in str(raised.value), "the rejection does not say what is denied"
        assert executor.recover() == {}
        rig.nothing_left("after a start that was rejected")
        for spec in [{}, *self.sample.wrong]:
            wrong = rig.task(spec)
            assert executor.denials(wrong, wrong.task_definition.containers[0]) == [], f"{spec!r:.100} is not valid"


def judged(executor: Any, spec: Mapping[str, Any]) -> list[Problem]:
    """What ``validate`` says, which has to be fit to be told."""
    found = executor.validate(spec)
    assert isinstance(found, list), f"validate returned {found!r:.200}, not a list"
    for problem in found:
        assert isinstance(problem, Problem), f"validate returned {problem!r:.200} among the problems"
        assert isinstance(problem.path, str)
        assert isinstance(problem.message, str)
        assert problem.message, "a problem says nothing"
        str(problem).encode()
    return found


def mistakes(executor: Any, spec: Mapping[str, Any]) -> list[Problem]:
    return [problem for problem in judged(executor, spec) if not problem.warning]


def ports_of(executor: Any, spec: Mapping[str, Any], port: int) -> frozenset[int]:
    """The ports, which have to be some that can be bound, and agree with the bindings."""
    found = executor.ports(spec, port)
    assert isinstance(found, frozenset), f"ports returned {found!r:.200}, not a frozenset"
    assert all(type(one) is int and 1 <= one <= 65535 for one in found), f"ports returned {sorted(found)[:20]}"
    if hasattr(executor, "bindings"):
        bindings = executor.bindings(spec, port)
        assert isinstance(bindings, frozenset)
        assert all(isinstance(one, Binding) for one in bindings)
        assert found == {one.port for one in bindings if one.protocol == "tcp"}, "ports and bindings don't agree"
    return found


def known_fields(sample: ExecutorSample) -> set[str]:
    """Names that specs of this executor have, or might have."""
    specs = [sample.stays, *sample.wrong, sample.unstartable or {}, sample.denied or {}]
    specs += [sample.listens(20000)] if sample.listens else []
    return {name for spec in specs for name in spec if isinstance(name, str)}


def huge(size: str) -> Iterator[Any]:
    match size:
        case "deep":
            deep_list: Any = "x"
            deep_map: Any = "x"
            for _ in range(400):
                deep_list, deep_map = [deep_list], {"a": deep_map}
            yield from (deep_list, deep_map)
        case "many":
            yield [str(number) for number in range(5_000)]
            yield {f"n{number}": number for number in range(5_000)}
            yield [{"a": 1}] * 5_000
        case "long":
            yield from ("x" * 2_000_000, "a=" * 500_000, "[" * 500_000, "\n" * 500_000, "'" * 500_001, 10**4000)
        case _:
            yield [[["x"] * 50] * 50] * 20


def same(one: Any, other: Any) -> bool:
    """Whether two values are the same to the last type: 1 is not true, and NaN is itself."""
    return repr(one) == repr(other)


QUIET = ("open", "os.", "socket.", "subprocess.", "shutil.", "tempfile.", "sqlite3.", "http.", "urllib.", "pty.")
_watching = threading.local()
_added = False


@contextmanager
def watched() -> Iterator[list[str]]:
    """What this thread asks of the world meanwhile, as far as Python's audit tells; imports are left out."""
    global _added
    if not _added:
        sys.addaudithook(_audit)  # once, for no hook can be taken out again
        _added = True
    seen: list[str] = []
    _watching.seen = seen
    try:
        yield seen
    finally:
        _watching.seen = None


def _audit(event: str, arguments: tuple[Any, ...]) -> None:
    seen: list[str] | None = getattr(_watching, "seen", None)
    if seen is not None and event.startswith(QUIET):
        seen.append(f"{event}{arguments!r:.120}")
