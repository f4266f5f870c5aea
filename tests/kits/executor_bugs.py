"""Deliberate bugs for the kit of executors: changes of the executor that `sked plugins new` writes, one at a time."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Bug:
    """``wrong``: as docs/kits.md tells it, as it does ``found_by``. ``changes``: texts before and after."""

    wrong: str
    found_by: str
    changes: tuple[tuple[str, str], ...]


def bug(wrong: str, found_by: str, *lines: str) -> Bug:
    return Bug(wrong[0].upper() + wrong[1:], f"test_{found_by}", tuple(zip(lines[::2], lines[1::2], strict=True)))


CHECKED = "return check_spec(spec, LanternSpec)"
PORTS = "return frozenset({port} if port else ())"
NEW = "        return new\n"
FIND = "            if not any(found.handle == handle for found in self._engine.all()):\n                return\n"
WAIT = "while self._engine.lives(handle) and time.monotonic() < deadline:"
OWN = "self._folder = context.state_dir / f\"{context.store_uid or 'unnamed'}@{context.host}\""
ALL = "return {found.handle: _observed(found) for found in self._engine.all()}"
REMOVE = '        _kill(handle.ref)\n        (self._folder / handle.ref / "handle").unlink(missing_ok=True)\n'
KEEP = '(folder / "draft").replace(folder / "handle")  # from here on it is found, whatever happens'
REAP = "        threading.Thread(target=self._reap, args=[process], daemon=True).start()\n"
NONE_LEFT = "killed_at_any_step_of_a_start_there_is_one_afterwards_and_none_after_its_stop"
HUNG = "an_engine_that_hangs_is_an_error_soon_and_never_an_absence"
JUDGED = "any_spec_is_judged"
ALIKE = "ports_are_told_alike_by_all_and_can_be_bound"
HANDLE = "a_handle_says_of_what_it_is"
OLD = "a_new_one_has_a_ref_of_its_own_which_the_old_handle_can_not_stop"
ENV = "it_has_the_environment_that_was_handed_over_to_the_letter"

BUGS = [
    bug(
        "a second start replaces what runs",
        "starting_again_gives_the_one_that_runs",
        *(
            "if found.running:  # an agent that was killed meanwhile has started it",
            "if found.running and not new.ref:",
        ),
    ),
    bug(
        "two starts at once don't see one another",
        "threads_that_start_one_task_at_once_start_it_once",
        *("fcntl.flock(lock, fcntl.LOCK_EX)", "fcntl.flock(lock, fcntl.LOCK_SH)"),
    ),
    bug(
        "a start hands out the dead one",
        "a_dead_one_is_replaced_with_all_that_it_left_running",
        *("if found.running:  # an agent that was killed meanwhile has started it", "if found:"),
    ),
    bug("a handle has no digest", HANDLE, "digest=digest(task)", 'digest=""'),
    bug(
        "the digest is that of the definition alone",
        HANDLE,
        "digest=digest(task)",
        "digest=digest(task.task_definition)",
    ),
    bug(
        "a new container has the ref of the old one",
        OLD,
        "ref=secrets.token_hex(8)",
        'ref=f"{task.id}.{container.name}"',
    ),
    bug(
        "an old handle stops the new container",
        OLD,
        *(
            FIND,
            "            there = [one.handle for one in self._engine.all() if one.handle.task_id == handle.task_id]\n",
        ),
        *(
            "            deadline = time",
            "            if not there:\n                return\n            (handle,) = there\n            deadline = time",
        ),
    ),
    bug(
        "stopping what is gone is an error",
        "stopping_again_or_what_is_unknown_is_fine",
        *(FIND, FIND.replace("return", 'raise ExecutorError("there is no such container")')),
    ),
    bug(
        "a stop asks, and forgets what does not listen",
        "nothing_that_it_started_runs_on_after_a_stop",
        *("            self._engine.remove(handle)\n", '            (self._folder / handle.ref / "handle").unlink()\n'),
    ),
    bug(
        "a stop ends by force at once",
        "it_is_asked_first_and_not_waited_for_once_it_has_ended",
        *("self._engine.ask(handle)", "self._engine.remove(handle)"),
    ),
    bug(
        "a stop takes the whole time of grace",
        "it_is_asked_first_and_not_waited_for_once_it_has_ended",
        *(WAIT, "while time.monotonic() < deadline:"),
    ),
    bug(
        "all hosts have one folder",
        "what_others_started_is_neither_seen_nor_stopped[host]",
        *(OWN, "self._folder = context.state_dir / context.store_uid"),
    ),
    bug(
        "all stores have one folder",
        "what_others_started_is_neither_seen_nor_stopped[store]",
        *(OWN, "self._folder = context.state_dir / context.host"),
    ),
    bug(
        "only what this process started is known",
        "what_one_process_started_is_found_by_the_next",
        *(NEW, f"        vars(self)[new.ref] = True\n{NEW}"),
        *(ALL, ALL.replace("self._engine.all()", "self._engine.all() if found.handle.ref in vars(self)")),
    ),
    bug(
        "a host without a folder has no engine",
        "where_nothing_was_started_nothing_is_found",
        *('sorted(self._folder.glob("*/handle"))', 'sorted(one / "handle" for one in list(self._folder.iterdir()))'),
    ),
    bug(
        "killed in a start, it leaves a process that nobody knows",
        NONE_LEFT,
        '[ -e "$0/handle" ] || exit 0\n',
        "",
        KEEP,
        "pass",
        REAP,
        f'        (folder / "draft").replace(folder / "handle")\n{REAP}',
    ),
    bug(
        "killed in a stop, it has forgotten what still runs",
        "killed_at_any_step_of_a_stop_the_next_one_ends_it",
        *(REMOVE, REMOVE.removeprefix("        _kill(handle.ref)\n")),
    ),
    bug(
        "an engine that does not answer has no containers",
        HUNG,
        *(
            "        known = self.recover()\n",
            "        known: Any = {}\n        with contextlib.suppress(ExecutorError):\n            known = self.recover()\n",
        ),
    ),
    bug(
        "a call waits for the engine without end",
        HUNG,
        '        raise ExecutorError(f"the engine',
        '        time.sleep(1000)\n        raise ExecutorError(f"the engine',
    ),
    bug(
        "what goes wrong is raised as it comes",
        "where_its_folder_can_not_be_written_it_says_so_or_goes_without",
        *("except (OSError, msgspec.DecodeError) as error:", "except msgspec.DecodeError as error:"),
    ),
    bug("validate raises", JUDGED, CHECKED, "return [] if msgspec.convert(spec, LanternSpec) else []"),
    bug(
        "validate changes the spec",
        JUDGED,
        CHECKED,
        f'spec.setdefault("command", ["true"])  # type: ignore\n        {CHECKED}',
    ),
    bug("validate tells one mistake at a time", "each_of_two_mistakes_is_reported", CHECKED, f"{CHECKED}[:1]"),
    bug("validate looks at the host", "judging_does_nothing_else", CHECKED, f"self._engine.all()\n        {CHECKED}"),
    bug(
        "the factory makes its folder",
        "a_factory_does_nothing_else_either",
        *(
            "        self._engine = Engine(self._folder)",
            "        self._folder.mkdir(parents=True, exist_ok=True)\n        self._engine = Engine(self._folder)",
        ),
    ),
    bug(
        "start takes a spec for valid",
        "what_is_wrong_is_not_started_and_leaves_nothing",
        "if problems := self.validate(container.executor):",
        "if problems := list[Problem]():",
    ),
    bug(
        "start changes the spec",
        "what_it_is_given_stays_as_it_was",
        NEW,
        f'        container.executor["started"] = True\n{NEW}',
    ),
    bug("ports are drawn", ALIKE, PORTS, "return frozenset({1 + secrets.randbelow(65535)})"),
    bug("no port is port 0", ALIKE, PORTS, "return frozenset({port})"),
    bug("variables are trimmed", ENV, "**env, MARK", "**{name: value.strip() for name, value in env.items()}, MARK"),
    bug("variables are lost", "a_script_reads_that_environment", "**env, MARK", "MARK"),
    bug(
        "the exit code is lost",
        "how_it_ended_is_told_by_each_instance[exit 77-77]",
        "exit_code=code, detail",
        "exit_code=code and 1, detail",
    ),
    bug(
        "the first lines are told for the last",
        "its_last_lines_are_told_also_of_one_that_has_ended",
        "[-lines:]",
        "[:lines]",
    ),
    bug("nobody is told of an end", "an_end_is_told_of", "        self._notify()\n", "        pass\n"),
    bug(
        "closing ends the containers",
        "closed_it_leaves_its_containers_running",
        '        """There is nothing to close."""',
        "        for found in self._engine.all():\n            self._engine.remove(found.handle)",
    ),
    bug(
        "each executor leaves a thread",
        "no_thread_and_no_file_is_left_when_it_is_closed",
        *(
            "        self._engine.on_end(notify)\n",
            "        threading.Thread(target=time.sleep, args=[1000], daemon=True).start()\n",
        ),
        *("import secrets\n", "import secrets\nimport threading\n"),
    ),
    bug("a start prints", "nothing_is_written_to_stdout", NEW, f"        print(new)\n{NEW}"),
]


def table() -> str:
    """As it stands in docs/kits.md."""
    told = [
        f"| {one.wrong} | {one.found_by.removeprefix('test_').partition('[')[0].replace('_', ' ')} |" for one in BUGS
    ]
    return "\n".join(["| a bug | is found by the test |", "| --- | --- |", *told])
