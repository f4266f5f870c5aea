"""Bugs that authors make, each a line of something that is right, and the test of a kit that finds it.

``python -m kits.bugs`` prints the tables of docs/kits.md.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from sked_core.interfaces.secrets import SecretContext
from sked_core.testing.health_contract import HealthContract
from sked_core.testing.package_contract import PackageContract
from sked_core.testing.samples import (
    HealthPlace,
    HealthSample,
    Keep,
    PackageSample,
    SchedulerSample,
    SecretSample,
    StoreSample,
)
from sked_core.testing.scheduler_contract import SchedulerContract
from sked_core.testing.secret_contract import SecretContract
from sked_core.testing.stores import StoreContract

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Bug:
    """``what`` is wrong where ``instead`` stands in place of ``line``, and the test that finds it."""

    what: str
    line: str
    instead: str
    found_by: str


@dataclass(frozen=True)
class Subject:
    """Something right, ``source``, that bugs are put into, and the kit that it passes without."""

    title: str
    source: str
    contract: type[Any]
    sample: Callable[[ModuleType], object]
    bugs: tuple[Bug, ...]
    settings: Mapping[str, object]

    def broken(self, bug: Bug | None) -> ModuleType:
        """The module with ``bug``, imported under a name of its own."""
        text = (ROOT / self.source).read_text()
        if bug is not None:
            assert text.count(bug.line) == 1, f"{bug.what}: {text.count(bug.line)} times {bug.line!r}"
            text = text.replace(bug.line, bug.instead)
        name = f"kits_{self.title.split()[0].lower()}_{self.bugs.index(bug) if bug else 'without'}"
        module = ModuleType(name)
        module.__file__ = str(ROOT / self.source)
        sys.modules[name] = module
        exec(compile(text, f"{name}.py", "exec"), module.__dict__)
        return module

    def tests(self, bug: Bug | None) -> type[Any]:
        """The kit's class of tests for it."""
        return type("Test", (self.contract,), {"sample": self.sample(self.broken(bug)), **self.settings})


def _files(module: ModuleType) -> Callable[[Path], tuple[Any, Keep]]:
    def fresh(folder: Path) -> tuple[Any, Keep]:
        folder = folder / "secrets"
        folder.mkdir(mode=0o700)

        def keep(name: str, value: str | None) -> None:
            path = folder / name
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            if value is None:
                return path.unlink()
            new = path.with_suffix(".new")
            new.touch(mode=0o600)
            new.write_text(value)
            new.replace(path)
            return None

        return module.SecretFiles(SecretContext("h", {"folder": str(folder)})), keep

    return fresh


def _probes(_folder: Path) -> HealthPlace:
    from sked_core.runtime.stores.memory import MemoryStore

    return HealthPlace(open=MemoryStore().client, url="memory://")


SCHEDULERS = Subject(
    "Schedulers",
    "tests/kits/roomy.py",
    SchedulerContract,
    lambda module: SchedulerSample(name="roomy", make=module.Roomy),
    (
        Bug(
            "Places one task more than was asked for",
            "for _ in range(count):",
            "for _ in range(count + 1):",
            "test_it_takes_whatever_it_is_asked_and_places_only_where_it_fits",
        ),
        Bug(
            "Does not look whether a task fits",
            "left.values() if each.fits(demand)]\n            if not",
            "left.values()]\n            if not",
            "test_it_takes_whatever_it_is_asked_and_places_only_where_it_fits",
        ),
        Bug(
            "Forgets what it has just placed",
            "            left[best.host] = best.after(demand)\n",
            "",
            "test_it_takes_whatever_it_is_asked_and_places_only_where_it_fits",
        ),
        Bug(
            "Puts two tasks with one fixed port onto a host",
            "left[best.host] = best.after(demand)",
            "left[best.host] = replace(best.after(demand), exclusive=False)",
            "test_it_takes_whatever_it_is_asked_and_places_only_where_it_fits",
        ),
        Bug(
            "Counts memory, cpu and disk itself, and forgets the ports of the host's range",
            "left.values() if each.fits(demand)]\n            if not",
            "left.values() if replace(each, free_ports=1).fits(demand)]\n            if not",
            "test_it_takes_whatever_it_is_asked_and_places_only_where_it_fits",
        ),
        Bug(
            "Divides by the memory of hosts that declare none",
            "candidate.free_memory / candidate.memory if candidate.memory else 0.0",
            "candidate.free_memory / candidate.memory",
            "test_it_takes_whatever_it_is_asked_and_places_only_where_it_fits",
        ),
        Bug(
            "Takes for granted that there is a candidate",
            "            if not fitting:\n                return\n",
            "",
            "test_it_takes_whatever_it_is_asked_and_places_only_where_it_fits",
        ),
        Bug(
            "Yields the candidate, not its name",
            "yield best.host",
            "yield best",
            "test_it_takes_whatever_it_is_asked_and_places_only_where_it_fits",
        ),
        Bug(
            "Asks for a list, where it is promised a sequence",
            "        left = {each.host: each for each in candidates}\n        for _ in range(count)",
            "        left = {each.host: each for each in candidates.copy()}\n        for _ in range(count)",
            "test_it_takes_whatever_it_is_asked_and_places_only_where_it_fits",
        ),
        Bug(
            "Waits for ever for room",
            "            if not fitting:\n                return\n",
            "            while not fitting:\n                pass\n",
            "test_it_takes_whatever_it_is_asked_and_places_only_where_it_fits",
        ),
        Bug(
            "Keeps the last host free",
            "            if not fitting:\n                return\n",
            "            if len(fitting) < 2:\n                return\n",
            "test_no_task_is_left_out_while_a_candidate_has_room",
        ),
        Bug(
            "Puts one task at most onto a host",
            "            left[best.host] = best.after(demand)\n",
            "            del left[best.host]\n",
            "test_no_task_is_left_out_while_a_candidate_has_room",
        ),
        Bug(
            "Leaves ties to the order of the candidates",
            "return -room, candidate.host",
            "return (-room,)",
            "test_the_order_of_the_candidates_is_nothing",
        ),
        Bug(
            "Takes hosts in turn, over all questions",
            "return -room, candidate.host",
            "return -round(room), next(TURNS) % 3, candidate.host",
            "test_the_same_input_gives_the_same_plan_whatever_was_asked_before",
        ),
        Bug(
            "Lets chance break ties",
            "return -room, candidate.host",
            "return -room, CHANCE.random()",
            "test_the_same_input_gives_the_same_plan_whatever_was_asked_before",
        ),
        Bug(
            "Sorts the list that it was given",
            "        left = {each.host: each for each in candidates}\n        for _ in range(count)",
            "        hasattr(candidates, 'sort') and candidates.sort(key=lambda each: each.host)\n"
            "        left = {each.host: each for each in candidates}\n        for _ in range(count)",
            "test_what_it_is_given_stays_as_it_is",
        ),
        Bug(
            "Prefers other hosts at night",
            "return -room, candidate.host",
            "return -room - (CLOCK.localtime().tm_hour > 24), candidate.host",
            "test_it_looks_at_nothing_but_its_input",
        ),
        Bug(
            "Reads a weight from the environment, which each scheduler has its own of",
            "return -room, candidate.host",
            "return -room * float(ENVIRONMENT.get('ROOMY_WEIGHT', '1')), candidate.host",
            "test_it_looks_at_nothing_but_its_input",
        ),
        Bug(
            "Reads a file of the machine",
            "return -room, candidate.host",
            "return -room, candidate.host in open('/etc/hosts').read(), candidate.host",
            "test_it_looks_at_nothing_but_its_input",
        ),
        Bug(
            "Prints what it does",
            "yield best.host",
            "print('on', best.host); yield best.host",
            "test_it_looks_at_nothing_but_its_input",
        ),
        Bug(
            "Compares every host with every other",
            "best = min(fitting, key=lambda each: self.order(demand, each))",
            "best = min(fitting, key=lambda each: (-sum(each.memory > one.memory for one in fitting), each.host))",
            "test_its_work_grows_no_faster_than_hosts_and_tasks",
        ),
        Bug(
            "Breaks ties by hash(), which each process has another of",
            "return -room, candidate.host",
            "return -room, hash(candidate.host)",
            "test_another_process_comes_to_the_same_plans",
        ),
        Bug(
            "Of many demands, takes no notice of the hosts that may have them",
            " and (hosts is None or each.host in hosts)]",
            "]",
            "test_of_many_demands_whatever_they_are_none_overloads_a_host",
        ),
        Bug(
            "Of many demands, puts two with one fixed port onto a host",
            "                taken[best.host] |= demand.fixed_ports\n",
            "",
            "test_of_many_demands_whatever_they_are_none_overloads_a_host",
        ),
        Bug(
            "Of many demands, answers for those only that it has placed",
            "        return chosen\n",
            "        return [hosts for hosts in chosen if hosts]\n",
            "test_of_many_demands_whatever_they_are_none_overloads_a_host",
        ),
        Bug(
            "Of many demands, ends with the first that does not fit",
            "                    break\n",
            "                    return chosen\n",
            "test_of_many_demands_no_task_is_left_out_while_a_host_has_room",
        ),
        Bug(
            "Of many demands, takes one after the other as they come",
            "return -max(demand.memory, demand.cpu_units), demand.cluster, demand.service",
            "return ()",
            "test_of_many_demands_neither_order_is_anything",
        ),
        Bug(
            "Gives terms that are infinite",
            "candidate.free_memory / candidate.memory if candidate.memory else 0.0",
            "candidate.free_memory / candidate.memory if candidate.memory else float('-inf')",
            "test_the_terms_are_what_it_decides_by",
        ),
        Bug(
            "Gives terms that it does not decide by",
            "return -room, candidate.host",
            "return -candidate.free_memory, candidate.host",
            "test_the_terms_are_what_it_decides_by",
        ),
        Bug(
            "Gives terms without names",
            '"free cpu": candidate',
            "0: candidate",
            "test_the_terms_are_what_it_decides_by",
        ),
    ),
    {"shrinks": False},
)

STORES = Subject(
    "Stores",
    "sked_core/runtime/stores/memory.py",
    StoreContract,
    lambda module: StoreSample(scheme="memory", fresh=lambda _folder: module.MemoryStore().client),
    (
        Bug(
            "Takes a prefix for the part of a path",
            "return self.keys[first : bisect.bisect_left(self.keys, prefix + _AFTER, first)]",
            "return [key for key in self.keys if f'{key}/'.startswith(prefix.rstrip('/') + '/') or not prefix]",
            "test_read_returns_what_starts_with_the_prefix",
        ),
        Bug(
            "Reads a prefix as a pattern",
            "return self.keys[first : bisect.bisect_left(self.keys, prefix + _AFTER, first)]",
            "import fnmatch; return fnmatch.filter(self.keys, prefix + '*')",
            "test_read_tells_prefixes_literally",
        ),
        Bug(
            "Keeps values as text",
            "self.entries[key] = Entry(value, self.revision, lease)",
            "self.entries[key] = Entry(value.decode(errors='replace').encode(), self.revision, lease)",
            "test_values_come_back_byte_by_byte",
        ),
        Bug(
            "Has a delete take longer keys along",
            "gone = [key for key in deletes if key in self.entries]",
            "gone = [key for key in self.entries if key.startswith(tuple(deletes))]",
            "test_delete_removes_no_longer_keys",
        ),
        Bug(
            "Has a delete of nothing fail",
            "gone = [key for key in deletes if key in self.entries]",
            "gone = list(deletes)",
            "test_delete_removes_and_may_be_repeated",
        ),
        Bug(
            "Makes no revision for a delete",
            "self.revision = Revision(self.revision + 1)",
            "self.revision = Revision(self.revision + bool(puts))",
            "test_a_revoked_lease_takes_its_keys_along",
        ),
        Bug(
            "Carries out the first fifty operations of a commit",
            "for op in ops if isinstance(op, Put)}",
            "for op in ops[:50] if isinstance(op, Put)}",
            "test_a_commit_shows_in_all_its_keys_under_one_revision",
        ),
        Bug(
            "Passes a check of a key that is gone",
            "if found != revision:",
            "if entry and found != revision:",
            "test_every_kind_of_stale_check_is_a_conflict",
        ),
        Bug(
            "Passes a check of what has changed since",
            "if found != revision:",
            "if found < revision:",
            "test_check_wants_exactly_this_revision",
        ),
        Bug(
            "Passes a check for absence of a key that is there",
            "if found != revision:",
            "if revision and found != revision:",
            "test_check_zero_means_must_not_exist",
        ),
        Bug(
            "Asks of a fence whether the key is there, not whose it is",
            "if entry is None or entry.lease != lease.id:",
            "if entry is None:",
            "test_fence_lets_only_the_holder_through",
        ),
        Bug(
            "Binds keys to a lease that has ended",
            "if lease and lease.id not in self.expiry:",
            "if lease and not lease.id:",
            "test_a_revoked_lease_is_lost",
        ),
        Bug(
            "Revives a lease that has ended",
            "if self.id not in data.expiry:",
            "if not self.id:",
            "test_a_revoked_lease_is_lost",
        ),
        Bug(
            "Leaves the keys of a lease that was revoked",
            "deletes=[key for key, entry in self.entries.items() if entry.lease in ended]",
            "deletes=[]",
            "test_a_revoked_lease_takes_its_keys_along",
        ),
        Bug(
            "Leaves a key bound that was written without a lease",
            'op.lease.id if op.lease else ""',
            "op.lease.id if op.lease else getattr(data.entries.get(op.key), 'lease', '')",
            "test_put_without_a_lease_frees_the_key",
        ),
        Bug(
            "Gives two leases one name",
            "data.granted += 1",
            "data.granted = 1",
            "test_grant_gives_at_least_the_ttl",
        ),
        Bug(
            "Ends a lease before its time",
            "            data.expiry[lease.id] = data.clock.monotonic() + ttl",
            "            data.expiry[lease.id] = data.clock.monotonic() + ttl / 4",
            "test_many_leases_expire_each_with_its_own_keys",
        ),
        Bug(
            "Renews a lease by nothing",
            "data.expiry[self.id] = data.clock.monotonic() + self.ttl",
            "data.expiry[self.id] = data.expiry[self.id]",
            "test_a_lease_that_is_renewed_does_not_expire",
        ),
        Bug(
            "Takes any key",
            "        check_key(op.key)\n",
            "",
            "test_hostile_keys_reach_no_store",
        ),
        Bug(
            "Takes more operations than it says",
            "if len(ops) > max_ops:",
            "if len(ops) > 2 * max_ops:",
            "test_too_many_operations_are_refused",
        ),
        Bug(
            "Cuts off what is too large",
            "data.change(\n                puts={op.key: (op.value, op.lease.id",
            "data.change(\n                puts={op.key: (op.value[:100_000], op.lease.id",
            "test_a_value_of_any_size_is_taken_whole_or_refused",
        ),
        Bug(
            "Lets one commit write a key twice",
            "if (op.key, guards) in seen:",
            "if guards and (op.key, guards) in seen:",
            "test_a_key_is_written_once_in_a_commit",
        ),
        Bug(
            "Wakes for every change, whatever was asked for",
            "return any(key.startswith(prefix) for _, keys in newer for key in keys)",
            "return any(key for _, keys in newer for key in keys)",
            "test_a_wait_on_an_empty_prefix_does_not_spin_while_others_are_written",
        ),
        Bug(
            "Closes all clients with one",
            "            self._closed = True\n",
            "            self._closed = True; self._data.entries.clear()\n",
            "test_close_ends_waits_and_may_be_repeated",
        ),
    ),
    {"patience": 3.0},
)

HEALTH = Subject(
    "Health providers",
    "sked_core/runtime/health/probes.py",
    HealthContract,
    lambda module: HealthSample(scheme="probes", make=module.ProbeHealth, fresh=_probes),
    (
        Bug(
            "Begins anew with every registration",
            "if before is not None and before.digest == content:",
            "if before is not None and before.digest != before.digest:",
            "test_an_unchanged_registration_is_left_alone",
        ),
        Bug(
            "Leaves a task alone that it knows, also where its checks have changed",
            "if before is not None and before.digest == content:",
            "if before is not None:",
            "test_a_changed_registration_takes_the_place_of_the_old_one",
        ),
        Bug(
            "Keeps a task that says nothing of checks out",
            'health = None if probes else Health(True, "no checks")',
            "health = None",
            "test_a_task_without_checks_is_healthy_while_it_is_registered",
        ),
        Bug(
            "Looks at the first container only",
            "for container in task.task_definition.containers for check",
            "for container in task.task_definition.containers[:1] for check",
            "test_every_check_has_to_pass",
        ),
        Bug(
            "Stops checks of a task that was deregistered, and tells of it for ever",
            "for task_id in sorted(removed)\n",
            "for task_id in sorted(removed)[:0]\n",
            "test_a_task_without_checks_is_healthy_while_it_is_registered",
        ),
        Bug(
            "Forgets what an earlier agent has registered",
            "return frozenset((stored - self._removed) | self._kept.keys())",
            "return frozenset(self._kept.keys())",
            "test_the_next_agent_takes_over_what_is_registered",
        ),
        Bug(
            "Takes what other hosts have registered for its own",
            "        prefix = keys.host_health(self._host)\n        stored = {TaskId(key.removeprefix(prefix))",
            "        prefix = keys.HEALTH\n        stored = {TaskId(keys.last_segment(key))",
            "test_tasks_of_other_hosts_are_told_of_and_left_alone",
        ),
        Bug(
            "Believes any host what it says of any task",
            "mine = told_by(hosts, host, TaskId(name))",
            "mine = True",
            "test_what_a_host_says_of_a_task_that_it_does_not_have_is_not_told",
        ),
        Bug(
            "Tells services of one name apart by nothing else",
            "(stored.cluster, stored.service) in wanted",
            "stored.service in dict(wanted).values()",
            "test_only_services_that_are_asked_for_are_told",
        ),
        Bug(
            "Shows secrets in what a check said",
            "output = self._mask(kept.task.id, health.output)",
            "output = health.output",
            "test_secrets_are_masked_before_anybody_else_sees_them",
        ),
        Bug(
            "Looks at the first check only",
            "_together(kept.probes) or kept.health",
            "_together(kept.probes[:1]) or kept.health",
            "test_every_check_has_to_pass",
        ),
        Bug(
            "Keeps a check that has passed once",
            "probe.last = outcome",
            "probe.last = probe.last if probe.passed else outcome",
            "test_health_follows_what_a_check_finds",
        ),
        Bug(
            "Says that nothing is registered where it can't tell",
            "        for key, entry in self._stored(hosts):\n",
            "        try:\n            found = list(self._stored(hosts))\n        except Unavailable:\n"
            "            return {}\n        for key, entry in found:\n",
            "test_what_is_not_known_is_not_told",
        ),
        Bug(
            "Ends with the first outage",
            "self._published = None\n                self._wake.set()\n",
            "return\n",
            "test_what_is_registered_and_deregistered_in_an_outage_is_so_after_it",
        ),
        Bug(
            "Wakes at once, always",
            "return self._store.wait(prefix, Revision(since), timeout)",
            "return since + 1",
            "test_a_wait_ends_in_time_and_does_not_spin",
        ),
        Bug(
            "Wakes for changes of one host where all are asked for",
            "prefix = keys.host_health(next(iter(hosts))) if len(hosts) == 1 else keys.HEALTH",
            "timeout, prefix = min(timeout, 5.0), keys.host_health(next(iter(hosts), 'none'))",
            "test_a_change_wakes_those_who_wait",
        ),
        Bug(
            "Deregisters all when an agent ends",
            "    def close(self) -> None:\n",
            "    def close(self) -> None:\n        [self.deregister(each) for each in list(self._kept)]\n",
            "test_the_next_agent_takes_over_what_is_registered",
        ),
        Bug(
            "Leaves its threads behind",
            "        self._pool.close()\n",
            "",
            "test_closing_ends_its_threads_and_may_be_repeated",
        ),
    ),
    {"patience": 2.0},
)

SECRETS = Subject(
    "Providers of secrets",
    "sked_core/runtime/secrets/files.py",
    SecretContract,
    lambda module: SecretSample(name="file", fresh=_files(module)),
    (
        Bug(
            "Trims values",
            'text.removesuffix("\\n").removesuffix("\\r")',
            "text.strip()",
            "test_a_secret_is_read_as_it_was_kept",
        ),
        Bug(
            "Reads values in another encoding",
            "text = data.decode()",
            "text = data.decode('latin-1')",
            "test_a_secret_is_read_as_it_was_kept",
        ),
        Bug(
            "Makes the version from the value",
            '.removesuffix("\\r"), version)',
            '.removesuffix("\\r"), text[:40])',
            "test_its_version_stays_until_it_changes_and_is_not_the_value",
        ),
        Bug(
            "Has a new version each time",
            '.removesuffix("\\r"), version)',
            '.removesuffix("\\r"), os.urandom(8).hex())',
            "test_its_version_stays_until_it_changes_and_is_not_the_value",
        ),
        Bug(
            "Has one version for ever",
            '.removesuffix("\\r"), version)',
            '.removesuffix("\\r"), "1")',
            "test_its_version_stays_until_it_changes_and_is_not_the_value",
        ),
        Bug(
            "Reads a secret once, and remembers it",
            "    def read(self, name: str, key: str) -> Secret:",
            "    @__import__('functools').cache\n    def read(self, name: str, key: str) -> Secret:",
            "test_what_was_there_is_not_found_any_more",
        ),
        Bug(
            "Says of a secret that is not there that it can't be told now",
            'raise NotFound(f"there is no {shown}") from None',
            'raise Unavailable(f"there is no {shown}") from None',
            "test_what_is_not_there_is_not_found",
        ),
        Bug(
            "Lets the errors of the system out as they are",
            "        except FileNotFoundError:\n",
            "        except FileNotFoundError:\n            raise\n",
            "test_what_is_not_there_is_not_found",
        ),
        Bug(
            "Takes no notice of the key",
            "        if key:\n",
            "        if key and not name:\n",
            "test_a_key_is_a_field_of_it_or_not_found",
        ),
        Bug(
            "Quotes the value in what it says of a wrong key",
            'raise NotFound("a file has no keys: leave key out")',
            "raise NotFound(f\"{self.read(name, '').value} has no keys: leave key out\")",
            "test_a_key_is_a_field_of_it_or_not_found",
        ),
        Bug(
            "Follows names out of its folder",
            'if any(part in ("", ".", "..") for part in parts):',
            'if any(part in ("", ".") for part in parts):',
            "test_no_name_leads_elsewhere",
        ),
        Bug(
            "Cuts off what is too large",
            "if len(data) > MAX_SECRET_BYTES:",
            "if len(data) > MAX_SECRET_BYTES + 1:",
            "test_what_is_too_large_is_denied",
        ),
        Bug(
            "Logs what it read",
            "            text = data.decode()\n",
            "            text = data.decode()\n            __import__('logging').debug('read %s', text)\n",
            "test_no_value_is_shown_or_logged",
        ),
        Bug(
            "Reads by one thread at a time, and gives up for the others",
            "        with ExitStack() as opened:\n            folder = self._open(",
            "        busy = self.__dict__.get('busy')\n        self.busy = True\n        if busy:\n"
            "            raise Unavailable('busy')\n"
            "        with ExitStack() as opened:\n            opened.callback(self.__dict__.pop, 'busy')\n"
            "            opened.callback(__import__('time').sleep, 0.1)\n            folder = self._open(",
            "test_many_threads_read_at_once_within_the_deadline",
        ),
        Bug(
            "Tells the doctor of problems where there are none",
            "return [self._unsafe(path) for path in self._folder.parents if self._unsafe(path)]",
            "return [self._unsafe(path) for path in self._folder.parents]",
            "test_it_is_fit_for_use_and_closes_twice",
        ),
        Bug(
            "Can't be closed twice",
            '        """Nothing is kept open."""\n',
            "        del self._folder\n",
            "test_it_is_fit_for_use_and_closes_twice",
        ),
    ),
    {},
)

PACKAGES = Subject(
    "Events and commands",
    "tests/kits/tally.py",
    PackageContract,
    lambda module: PackageSample(plugin=module.__name__),
    (
        Bug(
            "Waits to be awaited",
            "def sked_event(",
            "async def sked_event(",
            "test_every_hook_is_one_that_sked_calls",
        ),
        Bug(
            "Knows the kinds of events that there are today",
            "    COUNTS[kind] += 1\n",
            "    COUNTS[KINDS[KINDS.index(kind)]] += 1\n",
            "test_events_of_the_next_release_are_taken_in",
        ),
        Bug(
            "Takes for granted that an event has a reason",
            "COUNTS[what] += len(event.why) > 0",
            "COUNTS[event.why.split()[0]] += 1",
            "test_every_kind_of_event_is_taken_in",
        ),
        Bug(
            "Puts texts of people into a format",
            "    COUNTS[what] += len(event.why) > 0\n",
            "    COUNTS[(event.why + ' %d') % 1] += 1\n",
            "test_whatever_people_wrote_is_taken_in",
        ),
        Bug(
            "Can be told by one thread only",
            "    COUNTS[kind] += 1\n",
            "    COUNTS[LOCAL.owner.name] += 1\n",
            "test_events_are_taken_in_by_any_thread",
        ),
        Bug(
            "Leaves a thread behind for every event",
            "    COUNTS[kind] += 1\n",
            "    threading.Thread(target=threading.Event().wait, args=[30], daemon=True).start()\n",
            "test_many_events_leave_no_threads_and_no_open_files",
        ),
        Bug(
            "Leaves a file open for every event",
            "    COUNTS[kind] += 1\n",
            "    OPENED.append(here().open())\n",
            "test_many_events_leave_no_threads_and_no_open_files",
        ),
        Bug(
            "Prints events",
            "    COUNTS[kind] += 1\n",
            "    print(event.what)\n",
            "test_events_are_not_printed_and_change_nothing_of_the_process",
        ),
        Bug(
            "Sets variables of the process that it is in",
            "    COUNTS[kind] += 1\n",
            "    SYSTEM.environ['TALLY_LAST'] = event.what\n",
            "test_events_are_not_printed_and_change_nothing_of_the_process",
        ),
        Bug(
            "Sets up the log of the whole process",
            "    COUNTS[kind] += 1\n",
            "    LOGGING.getLogger().setLevel(LOGGING.DEBUG)\n",
            "test_events_are_not_printed_and_change_nothing_of_the_process",
        ),
        Bug(
            "Takes the name of a command of Sked",
            "    cli.add_command(tally)\n",
            "    cli.add_command(tally, 'status')\n",
            "test_commands_are_added_and_none_is_replaced",
        ),
        Bug(
            "Takes a command of Sked away",
            "    cli.add_command(tally)\n",
            "    cli.add_command(tally); cli.commands.pop('events')\n",
            "test_commands_are_added_and_none_is_replaced",
        ),
        Bug(
            "Gives `sked` itself an option",
            "    cli.add_command(tally)\n",
            "    cli.add_command(tally); cli.params.append(click.Option(['--tally']))\n",
            "test_commands_are_added_and_none_is_replaced",
        ),
        Bug(
            "Has a name that nobody types",
            '@click.group("tally")',
            '@click.group("Tally_Of_Events")',
            "test_commands_have_names_that_can_be_typed",
        ),
        Bug(
            "Has a command without help",
            '    """Show the commonest kinds of events."""\n',
            "",
            "test_every_command_and_option_says_what_it_is_for",
        ),
        Bug(
            "Has an option without help",
            ', help="How many kinds to show."',
            "",
            "test_every_command_and_option_says_what_it_is_for",
        ),
        Bug(
            "Greets when commands are added",
            "    cli.add_command(tally)\n",
            "    cli.add_command(tally); click.echo('tally is ready')\n",
            "test_commands_are_added_without_a_word_and_alike_each_time",
        ),
    ),
    {},
)

SUBJECTS = {subject.title: subject for subject in (SCHEDULERS, STORES, HEALTH, SECRETS, PACKAGES)}


def table(subject: Subject) -> str:
    """What docs/kits.md says under the subject's title."""
    rows = [f"| {bug.what} | {bug.found_by.removeprefix('test_').replace('_', ' ')} |" for bug in subject.bugs]
    return "\n".join(["| a bug | is found by the test |", "| --- | --- |", *rows])


if __name__ == "__main__":
    for one in SUBJECTS.values():
        print(f"## {one.title}\n\n{table(one)}\n")
