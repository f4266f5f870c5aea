"""Every command on every page can be typed, and is typed by a test or stands in a short list that says why not."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from rigs.pages import ROOT, SESSIONS, installed
from rigs.typist import steps
from sked_core.surface import cli

PAGES = sorted(
    path for pattern in ("*.md", "docs/**/*.md", "plugins/*/*.md", "examples/*.md", "benchmarks/*.md")
    for path in ROOT.glob(pattern)
)  # fmt: skip
TYPED = {ROOT / page for pages, _ in SESSIONS.values() for page in pages}
CARRIED_OUT = {ROOT / "docs" / "plugins" / "quickstart.md"}
"""By scripts/plugin-journey, from wheels: tests/packaging."""
FENCE = re.compile(r"^( *)```(\w*)[^\n]*\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)
PROGRAMS = (
    "sked ", "pip", "/opt/", "consul ", "etcd ", "etcdctl ", "aws", "docker ", "systemctl", "journalctl", "scripts/",
    "python", "pipx", "uv", "export", "umask", ". ", "curl", "sudo", "install", "mkdir", "cp", "git", "apt", "eval",
    "sed ", "packaging/",
)  # fmt: skip
ELSEWHERE = {
    r"(pip|pipx|uv|/opt/sked/bin/pip|python3 -m venv /opt|apt(-get)?) ?.*": "installs into this machine; the tutorial "
    "installs in an empty home, tests/packaging installs every wheel",
    r"(sudo )?(systemctl|journalctl|systemd-sysusers|install) ?.*": "is for systemd, which machines of tests lack; "
    "tests/packaging looks at the units",
    r"(sed .*)?packaging/.*": "gives rights in a store; tests/packaging does so",
    r"scripts/.*|git .*": "works on a clone; what scripts do is tested under tests/packaging and tests/history",
    r"\. .*|export .*|umask .*|eval .*": "sets up a shell",
    r"(etcd|etcdctl|aws|docker|consul|curl) .*": "is another project's",
    r"sked .*(etcd|dynamodb|consul)://.*": "needs such a store at the address of the page: five-hosts.md "
    "is typed on Consul, tests/e2e and the plugins' tests run on each",
    r"sked .*--tls-cert .*": "needs the certificate of a host: tests/serving/test_listening.py makes one",
    r"sked signing .* /etc/sked/.*": "writes a key into this machine's /etc; tests of signing make one elsewhere",
    r"python -m build|sked plugins check .*": "is for a package of one's own: scripts/plugin-journey builds three",
    r"python -m sked_core.testing.outside .*": "needs a scheduler of one's own: tests of outside schedulers try "
    "the three of examples/",
    r"sked compose import .*|sked plan -f shop.yml": "needs a compose file: tests of sked-compose have many",
    r"sked notify test": "needs webhooks: tests of sked-notify answer them",
    r"sked --backend jsonfile://.*": "needs the plugin of the page: tests/docs/test_plugin_walk.py runs it",
}
"""Commands that no test types as they stand, by pattern, and why not."""


def blocks(page: Path) -> Iterator[tuple[int, str]]:
    """The commands in fenced blocks, by the number of their line; a block of output has none."""
    text = page.read_text()
    for match in FENCE.finditer(text):
        if match[2] not in ("", "sh", "bash", "console"):
            continue
        first = text.count("\n", 0, match.start(3)) + 1
        lines = [line[len(match[1]) :] for line in match[3].splitlines()]
        prompted = any(re.match(r"([a-z][\w-]*)?\$ ", line) for line in lines)
        if not prompted and not (lines and lines[0].startswith(PROGRAMS)):
            continue
        number = 0
        while number < len(lines):
            at, line = number, lines[number]
            number += 1
            command = re.sub(r"^([a-z][\w-]*)?\$ ", "", line) if prompted else line
            if prompted and command == line:
                continue
            while number < len(lines) and (command.endswith("\\") or lines[number].startswith("> ")):
                command = command.removesuffix("\\") + "\n" + lines[number].removeprefix("> ")
                number += 1
            if command.strip() and not command.startswith(("#", "…", "sked: ")):
                yield first + at, command.strip()


def calls(command: str) -> Iterator[list[str]]:
    """The words of each call of sked in a line for a shell."""
    joined = re.sub(r"\d>&\d", "", command)
    lexer = shlex.shlex(joined.replace("\n", " ; "), posix=True, punctuation_chars=True)
    lexer.whitespace_split = True
    words: list[str] = []
    found = [*lexer, ";"]
    for number, word in enumerate(found):
        if word in (">", ">>", "<") or found[max(0, number - 1)] in (">", ">>", "<"):
            continue  # where it goes is no part of it
        if word in (";", "|", "&", "&&", "||", "(", ")", "do", "done"):
            while words and re.fullmatch(r"\w+=.*", words[0]):
                words.pop(0)
            if words and words[0].rpartition("/")[2] == "sked":
                yield words[1:]
            words = []
        else:
            words.append(word)


def parse(args: list[str]) -> None:
    """Raises click.UsageError for what sked would not take."""
    ctx = cli.cli.make_context("sked", list(args))
    while isinstance(group := ctx.command, click.Group) and (left := [*ctx._protected_args, *ctx.args]):
        name, command, rest = group.resolve_command(ctx, left)
        assert command is not None
        ctx = command.make_context(name, rest, parent=ctx)


def _name(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("page", PAGES, ids=_name)
def test_sked_takes_every_command_of_the_page(page) -> None:
    wrong = []
    for line, command in blocks(page):
        for args in calls(command):
            try:
                parse(args)
            except click.UsageError as error:
                wrong.append(f"{_name(page)}:{line}: {command}: {error.format_message()}")
            except click.exceptions.Exit:
                continue
    assert wrong == []


INLINE = re.compile(r"(?<!`)`(sked [^`\n]+(?:\n[^`\n]+)?)`(?!`)")


def unknown(words: list[str]) -> str:
    """What of a command in prose, with its gaps and capitals, sked does not know; empty if it knows all of it."""
    group: click.Command = cli.cli
    context = click.Context(cli.cli)
    allowed = {option for parameter in cli.cli.params for option in (*parameter.opts, *parameter.secondary_opts)}
    for word in words:
        if word == "--":
            return ""
        if word.startswith("-") and len(word) > 1:
            for option in re.split(r"[|/]", word.partition("=")[0].strip("[]…,")):
                if option not in allowed | {"--help", "-h"}:
                    return option
        elif isinstance(group, click.Group) and re.fullmatch(r"[a-z][a-z-]*", word):
            found = group.get_command(context, word)
            if found is None:
                return word
            group = found
            allowed |= {option for each in found.params for option in (*each.opts, *each.secondary_opts)}
        elif isinstance(group, click.Group) and "|" in word and word.islower():
            return next((each for each in word.split("|") if group.get_command(context, each) is None), "")
    return ""


@pytest.mark.parametrize("page", [page for page in PAGES if "decisions" not in page.parts], ids=_name)
def test_sked_knows_the_commands_and_options_that_prose_names(page) -> None:
    text = FENCE.sub("", page.read_text())
    wrong = []
    for match in INLINE.finditer(text):
        words = match[1].replace("\\|", "|").split()[1:]
        if words and (bad := unknown(words)):
            wrong.append(f"{match[0]}: {bad}")
    assert wrong == []


def kind(page: Path, command: str) -> str:
    """How a test has to do with a command: ``typed``, ``tried`` on the cluster below, or why neither."""
    if page in CARRIED_OUT:
        return "typed"
    if page in TYPED and any(command == getattr(step, "text", "") for step in steps(page)):
        return "typed"
    for pattern, why in ELSEWHERE.items():
        if re.fullmatch(pattern, command, re.DOTALL):
            return why
    return "tried" if any(calls(command)) else ""


def test_every_command_is_typed_or_tried_or_excused() -> None:
    forgotten = [
        f"{_name(page)}:{line}: {command}" for page in PAGES for line, command in blocks(page)
        if page not in TYPED and not kind(page, command)
    ]  # fmt: skip
    assert forgotten == []


def test_every_excuse_is_needed() -> None:
    used = {kind(page, command) for page in PAGES for _, command in blocks(page)}
    assert [why for why in ELSEWHERE.values() if why not in used] == []


HOSTS = """
```console
$ sked run agent --host web-1 --state-dir ~/web-1 --port-range 21000-21999 --tag zone=a # leave it running
$ sked run agent --host web-2 --state-dir ~/web-2 --port-range 22000-22999 --tag zone=b # leave it running
$ sked run agent --host web-3 --state-dir ~/web-3 --port-range 23000-23999 --tag zone=b # leave it running
$ sked run scheduler # leave it running
$ sked status
…
hosts:       3: 3 ready
schedulers:  1
…
```

""".replace("run agent", "run agent --policy development")
WEB = """
This is `policy.yml`:

```yaml
executors: [bash]
bash: {run_as: nobody}
```

This is `web.yml`:

```yaml
clusters:
  - {name: default, services: [hello, web, worker]}
services:
  - {name: web, task_name: web, task_version: 2, desired: 2, update: {healthy_for: 1s}}
  - {name: worker, task_name: web, task_version: 2, desired: 1}
task_definitions:
  - {name: web, version: 2, containers: [{name: web, type: bash, executor: {start: "while sleep 1; do id; done"}}]}
  - {name: web, version: 3, containers: [{name: web, type: bash, executor: {start: "while sleep 1; do pwd; done"}}]}
```

```console
$ sked apply -f web.yml --wait
…
$ sed -i '0,/task_version: 2/s//task_version: 3/' web.yml
$ sked apply -f web.yml --wait
…
```
"""
CODES = {
    r"sked rollout (promote|pause|resume) .*": {0, 4, 5},
    r"sked simulate .*": {0, 8},
    r"sked (why|logs|exec) default-web-3-0.*": {0, 4, 5},
    r"sked doctor .*": {0, 1},
    r"sked policy test -f \S+": {0, 3},
}
"""What may come of a command that depends on more than its page says; else it has to end with 0."""


def _tried() -> dict[str, Path]:
    """Each command that no other test types, once, in the order of the pages, and its page."""
    found: dict[str, Path] = {}
    for page in PAGES:
        for _, command in blocks(page) if page not in TYPED else ():
            if kind(page, command) == "tried":
                found.setdefault(re.sub(r"\s+# .*| > /\S+", "", command), page)
    return found


@pytest.mark.timeout(900)
def test_every_other_command_does_what_it_says_on_a_live_cluster(tmp_path) -> None:
    readme = (ROOT / "README.md").read_text()
    (hello,) = re.findall(r"`hello\.yml`[^\n]*\n[^`]*?```yaml\n(.*?)```", readme, re.DOTALL)
    (tmp_path / "hosts.md").write_text(HOSTS)
    (tmp_path / "web.md").write_text(WEB)
    wrong, more = [], False
    with installed() as typist:
        typist.type(tmp_path / "hosts.md")
        (typist.home / "you" / "hello.yml").write_text(hello)
        for command, page in _tried().items():
            if page.name != "README.md" and not more:
                typist.type(tmp_path / "web.md")
                more = True
            if re.match(r"sked (run \w+|web|agent|scheduler|combined)\b", command) or re.search(r" (-f|-w)$", command):
                said, code = typist.try_running(command), 0
            else:
                said, code = typist.try_typing(command)
            allowed = next((codes for pattern, codes in CODES.items() if re.fullmatch(pattern, command)), {0})
            if code not in allowed or "Traceback" in said:
                wrong.append(f"{command}: {code}\n{said}")
    assert wrong == []
