"""Types the pages of the docs, word for word, and holds what is printed against what they show.

What is typed, and how it is written, so that it reads well on a page:

- A block ```` ```console ````: lines after a prompt are typed, the lines below them are what has to be printed. The
  prompt is ``$``, or ``web-1$`` for another host, or ``each$`` for all hosts, one after the other. A line that begins
  with ``> `` goes on with the command above.
- A file: a block that follows a line which ends with its name, as in ``put this into `hello.yml`:``, or
  `` `web-1:/etc/sked/sked.toml`: `` for one on another host. It is written before what follows is typed.
- ``…`` stands for whatever is printed there, alone on a line for any number of lines. Times, revisions, ports from
  20000 on and names of processes may be others than on the page, and so may the width of a table. A revision or a port
  that the page types later is replaced by the one that was printed.
- ``(exit code 4)`` below a command: it has to end so. Otherwise it has to end with 0.
- ``# leave it running`` behind a command: it goes on in its terminal, and what follows is typed in another one. ``^C``
  is Ctrl-C: below a command for that one; at the beginning of a block, or behind a host's prompt, for what was left
  running last, and what follows is typed in that terminal.
- ``<!-- typed … -->``: a block that is typed without being shown.

What a reader would look at again until it is so (``sked tasks``, ``curl`` and the like) is typed again until it is so.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

PATIENCE = 120.0
"""Seconds until a command, or what it should show, is given up: a bound for hangs."""
LOOKS = re.compile(
    r"(sked (tasks|services|hosts|clusters|status|events|explain|why|logs|top|describe|doctor|simulate|locks)|curl"
    r"|sked rollout (status|history)|sked rebalance$|consul (members|catalog|operator)|ls|cat)\b"
)
PROMPT = re.compile(r"(?:([a-z][\w-]*))?\$ (.*)")
BLOCK = re.compile(
    r"^(?P<indent> *)```console[^\n]*\n(?P<console>.*?)^(?P=indent)```$"
    r"|`(?P<name>[\w./:~-]+)`[^`\n]*:\n\n```(?!console)\w+\n(?P<text>.*?)^```$"
    r"|^<!-- typed\n(?P<hidden>.*?)^-->$",
    re.MULTILINE | re.DOTALL,
)
LEAVE = re.compile(r"\s+# leave it running\b.*")
VARIES = re.compile(
    r"(?P<revision>(?<=revision )\d+)"
    r"|(?P<port>\b2\d{4}\b)"
    r"|(?P<time>\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?Z|\b\d\d:\d\d:\d\d\b)"
    r"|(?P<user>\b[a-z]\w*@[a-z][\w.-]*)"
    r"|(?P<process>\b[\w-]+(?:\.[\w-]+)*\.\d+\.[0-9a-f]{2,}\b)"
)
LEARNT = ("revision", "port")
OTHER = {
    "revision": r"(\d+)",
    "port": r"(\d+)",
    "time": r"([\d:TZ.-]+)",
    "user": r"([\w@.-]+)",
    "process": r"([\w.-]+)",
}


@dataclass(frozen=True, slots=True)
class Command:
    """One command of a page, and what has to be printed."""

    page: Path
    line: int
    where: str
    text: str
    shown: tuple[str, ...]
    code: int
    leaves: bool
    interrupted: bool
    first: bool
    """Whether ``^C`` for what was left running last comes before it; ``text`` may be empty then."""

    def __str__(self) -> str:
        return f"{self.page.name}:{self.line}: {self.text}"


@dataclass(frozen=True, slots=True)
class File:
    """A file that a page has its reader write."""

    where: str
    name: str
    text: str


def steps(page: Path) -> Iterator[Command | File]:
    """What a reader of the page does, in order."""
    text = page.read_text()
    for match in BLOCK.finditer(text):
        if match["name"] is not None:
            where, _, name = match["name"].rpartition(":")
            yield File(where, name, match["text"])
        else:
            shown = match["console"] is not None
            body = match["console"] if shown else match["hidden"]
            line = text.count("\n", 0, match.start("console" if shown else "hidden")) + 1
            indent = len(match["indent"] or "")
            yield from _commands(page, line, [each[indent:] for each in body.splitlines()])


def _commands(page: Path, line: int, lines: Sequence[str]) -> Iterator[Command]:
    number = 0
    first = lines[0].strip() == "^C"
    while number < len(lines):
        prompt = PROMPT.fullmatch(lines[number])
        if prompt is None:
            assert number == 0, f"{page.name}:{line + number}: neither a prompt nor what a command shows"
            assert first, f"{page.name}:{line}: a console block begins with a prompt"
            if not any(PROMPT.fullmatch(each) for each in lines):
                yield Command(page, line, "", "", (), 0, False, False, True)
            number += 1
            continue
        at, typed, shown, code, interrupted = number, [prompt[2]], [], 0, False
        number += 1
        while number < len(lines) and lines[number].startswith("> "):
            typed.append(lines[number][2:])
            number += 1
        while number < len(lines) and not PROMPT.fullmatch(lines[number]):
            if found := re.fullmatch(r"\(exit code (\d+)\)", lines[number]):
                code = int(found[1])
            elif lines[number].strip() == "^C":
                interrupted = True
            else:
                shown.append(lines[number].rstrip())
            number += 1
        text = "\n".join(typed)
        if text == "^C":
            text, first = "", True
        leaves = LEAVE.search(text) is not None
        yield Command(
            page, line + at, prompt[1] or "", LEAVE.sub("", text), tuple(shown), code, leaves, interrupted, first
        )
        first = False


def pattern(shown: Sequence[str]) -> tuple[re.Pattern[str], list[tuple[str, str]]]:
    """What a page shows as a pattern over ``squeezed`` output, and of each of its groups (kind, as shown)."""
    varying: list[tuple[str, str]] = []
    lines = []
    for line in shown:
        if line.strip() == "…":
            lines.append(r"(?:.*\n)*?")
            continue
        parts, end, squeezed = [], 0, squeeze(line)
        for match in VARIES.finditer(squeezed):
            parts.append(_literal(squeezed[end : match.start()]))
            assert match.lastgroup is not None
            parts.append(OTHER[match.lastgroup])
            varying.append((match.lastgroup, match[0]))
            end = match.end()
        lines.append("".join([*parts, _literal(squeezed[end:]), r"\n"]))
    return re.compile("".join(lines)), varying


def _literal(text: str) -> str:
    return "[^\n]*?".join(re.escape(part) for part in text.split("…"))


def squeeze(line: str) -> str:
    """A line without what depends on the width of a table's cells."""
    return re.sub(r"-{4,}", "----", re.sub(r"\s+", " ", line.rstrip()))


class Terminal:
    """A shell that goes on from one command to the next, as a person's does."""

    def __init__(self, folder: Path, env: Mapping[str, str], within: Sequence[str]) -> None:
        self._log = folder / f"terminal-{secrets.token_hex(3)}"
        self._shell = subprocess.Popen(
            [*within, "bash", "--noprofile", "--norc"],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd=env["HOME"],
            env=dict(env),
            text=True,
            start_new_session=True,
        )
        self._send("set -m\n")
        self.busy: Path | None = None
        """What the command that was left running prints."""
        self._count, self._job = 0, 0

    def _send(self, text: str) -> None:
        assert self._shell.stdin is not None
        self._shell.stdin.write(text)
        self._shell.stdin.flush()

    def type(self, command: str) -> tuple[str, int]:
        """Run it to its end. Returns what it printed, on both outputs, and its exit code."""
        out = self._note(command)
        code = Path(f"{out}.code")
        self._send(f'eval "$(cat {out}.in)" </dev/null >{out} 2>&1; echo $? >{code}.new; mv {code}.new {code}\n')
        self.until(code.exists, f"{command}: it does not end", out)
        return out.read_text(), int(code.read_text())

    def leave(self, command: str) -> Path:
        """Start it, and let it run. Returns the file that it prints to."""
        out = self._note(command)
        pid = Path(f"{out}.pid")
        self._send(f'eval "$(cat {out}.in)" </dev/null >{out} 2>&1 & echo $! >{pid}.new; mv {pid}.new {pid}\n')
        self.until(pid.exists, f"{command}: it does not start", out)
        self.busy, self._job = out, int(pid.read_text())
        return out

    def interrupt(self) -> None:
        """Ctrl-C for what was left running here; returns once it has ended."""
        assert self.busy is not None
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._job, signal.SIGINT)
        ended = Path(f"{self.busy}.ended")
        self._send(f"wait {self._job}; touch {ended}\n")
        self.until(ended.exists, "Ctrl-C does not end what was left running", self.busy)
        self.busy = None

    def _note(self, command: str) -> Path:
        """Where the next command prints to. The shell reads the command from a file beside it, quotes and all."""
        self._count += 1
        out = self._log.with_name(f"{self._log.name}-{self._count}")
        Path(f"{out}.in").write_text(command)
        out.touch()
        return out

    def until(self, holds: Callable[[], bool], what: str, out: Path) -> None:
        deadline = time.monotonic() + PATIENCE
        while not holds():
            if time.monotonic() > deadline or self._shell.poll() is not None:
                raise AssertionError(f"{what}\n{out.read_text()[-4000:]}")
            time.sleep(0.02)

    def end(self) -> None:
        with contextlib.suppress(BrokenPipeError, OSError):
            assert self._shell.stdin is not None
            self._shell.stdin.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._shell.wait(2)
        self._shell.kill()
        self._shell.wait(60)


@dataclass
class Typist:
    """Types pages, in a home of their own that is removed with everything that was started for it.

    ``hosts`` gives what goes before a command that is typed on a host, by the host's name.
    """

    folder: Path
    env: Mapping[str, str]
    hosts: Mapping[str, Sequence[str]] = field(default_factory=dict)
    printed: dict[Command, str] = field(default_factory=dict)
    """Of the commands that printed something else than the page shows, what that was; only if ``lenient``."""
    lenient: bool = False
    fresh: bool = False
    """Whether to note what every command printed, if no ``…`` stands for it."""

    def __post_init__(self) -> None:
        self.home = self.folder / "home"
        self._terminals: list[tuple[str, Terminal]] = []
        self._left: list[tuple[str, Terminal]] = []
        """Those in which something was left running, the last one last."""
        self._learnt: dict[str, str] = {}

    def type(self, page: Path) -> None:
        for step in steps(page):
            for where in self.hosts if step.where == "each" else [step.where]:
                if isinstance(step, File):
                    self._write(where, step)
                else:
                    self._do(where, step)

    def try_typing(self, command: str) -> tuple[str, int]:
        """What a command prints, and how it ends."""
        return self._free("").type(command)

    def try_running(self, command: str) -> str:
        """Leave a command running until it prints something, then Ctrl-C. Returns all that it printed."""
        terminal = self._free("")
        out = terminal.leave(command)
        terminal.until(lambda: bool(out.read_text()), f"{command}: it prints nothing", out)
        terminal.interrupt()
        return out.read_text()

    def _home(self, where: str) -> Path:
        home = self.home / where if where else self.home / "you"
        home.mkdir(parents=True, exist_ok=True)
        return home

    def _write(self, where: str, file: File) -> None:
        command = f"mkdir -p \"$(dirname {file.name})\"\ncat >{file.name} <<'end-of-file'\n{file.text}end-of-file"
        said, code = self._free(where).type(command)
        assert code == 0, said

    def _free(self, where: str) -> Terminal:
        """The terminal on that host where something can be typed; a new one if there is none."""
        for name, terminal in reversed(self._terminals):
            if name == where and terminal.busy is None:
                return terminal
        env = {**self.env, "HOME": str(self._home(where))}
        terminal = Terminal(self.folder, env, self.hosts[where] if where else ())
        self._terminals.append((where, terminal))
        return terminal

    def _do(self, where: str, step: Command) -> None:
        text = step.text.replace("HOST", where) if step.where == "each" else step.text
        for shown, real in self._learnt.items():
            text = text.replace(shown, real)
        if step.first:
            terminal = next(each for name, each in reversed(self._left) if name == where and each.busy is not None)
            terminal.interrupt()
            self._terminals.remove((where, terminal))
            self._terminals.append((where, terminal))
            self._left.remove((where, terminal))
            if not text:
                return
        else:
            terminal = self._free(where)
        if step.leaves or step.interrupted:
            out = terminal.leave(text)
            self._left.append((where, terminal))
            self._hold(step, where, lambda: (out.read_text(), step.code), 4.0 if self.lenient else PATIENCE, runs=True)
            if step.interrupted:
                terminal.interrupt()
                self._left.pop()
            return
        again = (4.0 if self.lenient and "…" not in "".join(step.shown) else PATIENCE / 2) if LOOKS.match(text) else 0.0
        self._hold(step, where, lambda: terminal.type(text), again)

    def _hold(
        self, step: Command, where: str, look: Callable[[], tuple[str, int]], patience: float, *, runs: bool = False
    ) -> None:
        """Hold what is printed against what the page shows, until it is so."""
        expected, varying = pattern(self._real(step, where))
        deadline = time.monotonic() + patience
        while True:
            said, code = look()
            said = said.replace(str(self.home), "/home")
            lines = "".join(squeeze(line) + "\n" for line in said.splitlines())
            found = expected.match(lines) if runs else expected.fullmatch(lines)
            if found and code == step.code:
                self._learnt |= {
                    shown: real for (kind, shown), real in zip(varying, found.groups(), strict=True)
                    if kind in LEARNT
                }  # fmt: skip
                if self.fresh and step.shown and "…" not in "".join(step.shown):
                    self.printed[step] = said
                return
            if time.monotonic() >= deadline:
                break
            time.sleep(0.2)
        if self.lenient and code == step.code:
            self.printed[step] = said
            self._relearn(step.shown, said)
            return
        shown = "\n".join(step.shown)
        ended = f"it ended with {code} instead of {step.code}" if code != step.code else "it printed"
        raise AssertionError(f"{step}\n{ended}:\n{said}\n--- the page shows:\n{shown}\n{self._logs()}")

    def _relearn(self, shown: Sequence[str], said: str) -> None:
        before = re.findall(r"(?<=revision )\d+", "\n".join(shown))
        for old, new in zip(before, re.findall(r"(?<=revision )\d+", said), strict=False):
            self._learnt[old] = new

    def _real(self, step: Command, where: str) -> list[str]:
        return [line.replace("HOST", where) if step.where == "each" else line for line in step.shown]

    def _logs(self) -> str:
        busy = [(name, each.busy) for name, each in self._terminals if each.busy is not None]
        return "\n".join(f"--- left running {name}: {out.read_text()[-2000:]}" for name, out in busy)

    def remains(self) -> list[str]:
        """Commands of processes that were started for these pages and still run, shells apart."""
        shells = {each._shell.pid for _, each in self._terminals}
        return [f"{pid} {command}" for pid, command in self._processes() if pid not in shells]

    def _processes(self) -> Iterator[tuple[int, str]]:
        mark = f"HOME={self.home}/".encode()
        for environ in Path("/proc").glob("[0-9]*/environ"):
            with contextlib.suppress(OSError):
                if mark in environ.read_bytes():
                    command = environ.with_name("cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                    yield int(environ.parent.name), command

    def end(self) -> None:
        """End whatever runs: nothing is left behind, whether or not all went well."""
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            left = [pid for pid, _ in self._processes()]
            for pid in left:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            for _, terminal in self._terminals:
                terminal.end()
            if not left:
                return
            time.sleep(0.1)
