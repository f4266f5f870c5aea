"""Plugins that do wrong, each in a way of its own, as packages: for docs/broken-plugins.md and the test that holds it
to what really comes of them."""

from __future__ import annotations

from pathlib import Path

from rigs.small_plugins import HOOKIMPL, package

EXECUTOR = """
from sked_core.plugin import Handle, Observation, State, digest


class Works:
    def __init__(self, context):
        self.running = {}

    def validate(self, spec):
        return []

    def ports(self, spec, port):
        return frozenset()

    def start(self, task, container, env):
        handle = Handle(task.id, container.name, "1", digest(task))
        return self.running.setdefault((task.id, container.name), handle)

    def stop(self, handle, grace):
        self.running.pop((handle.task_id, handle.container), None)

    def inspect(self, handles):
        states = {True: Observation(State.RUNNING), False: Observation(State.ABSENT)}
        return {one: states[one in self.running.values()] for one in handles}

    def recover(self):
        return {}

    def tail(self, handle, lines):
        return []

    def watch(self, notify):
        pass

    def close(self):
        pass

"""
OFFERS = "\n\n@hookimpl\ndef sked_{kind}():\n    return {what}\n"
SCHEDULER = """
class Place:
    def place(self, demand, count, candidates):
        {body}

"""


def scheduler(name: str, body: str) -> str:
    return HOOKIMPL + SCHEDULER.format(body=body) + OFFERS.format(kind="schedulers", what=f'{{"{name}": Place}}')


def executor(name: str, more: str = "") -> str:
    return HOOKIMPL + EXECUTOR + more + OFFERS.format(kind="executors", what=f'{{"{name}": Works}}')


SOURCES = {
    "raises": "raise RuntimeError('no luck')",
    "fails": executor("fails", "    def start(self, task, container, env):\n        raise ValueError('a bug')\n")
    + scheduler("fails", "raise ValueError('a bug')"),
    "hangs": "import threading\nthreading.Event().wait()",
    "stuck": scheduler("stuck", "import threading; threading.Event().wait()"),
    "exits": "import sys\nsys.exit(3)",
    "types": f"{HOOKIMPL}@hookimpl\ndef sked_executors():\n    return ['types']\n"
    "\n\n@hookimpl\ndef sked_schedulers():\n    return {7: print, 'types': 'no factory'}\n",
    "takes": f"{HOOKIMPL}import click\n"
    + OFFERS.format(kind="schedulers", what='{"default": object}')
    + "\n\n@hookimpl\ndef sked_commands(cli):\n    cli.add_command(click.Command('apply'))\n",
    "later": "raise RuntimeError('never imported')",
    "ports": executor("ports", "    def ports(self, spec, port):\n        return frozenset(range(1, 65536))\n"),
    "mutates": executor("mutates", "    def validate(self, spec):\n        spec.clear()\n        return []\n")
    + scheduler(
        "mutates",
        "[object.__setattr__(one, 'free_memory', -1) for one in candidates]; yield candidates[0].host",
    ),
    "leaks": "import threading\nfor _ in range(20):\n    threading.Thread(target=threading.Event().wait).start()\n"
    + scheduler("leaks", "yield candidates[0].host"),
    "prints": "print('{\"items\": []}')\n" + scheduler("prints", "print('placing'); yield candidates[0].host"),
    "slow": "import time\ntime.sleep(1.2)\n" + scheduler("slow", "yield candidates[0].host"),
}
"""By the name of the plugin."""


def install(folder: Path) -> None:
    for name, source in SOURCES.items():
        package(folder, name, source, groups=["sked.v2"] if name == "later" else ["sked"])
