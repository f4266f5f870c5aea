"""A first manifest, for the executors that are installed here."""

from __future__ import annotations

from collections.abc import Collection

from sked_core.errors import PluginError

_HEAD = """\
# Hello, world. Declare it with:  sked apply -f {file}
clusters:
  - {{name: default, services: [helloworld]}}

services:
  - name: helloworld
    task_name: helloworld
    task_version: 1
    desired: 2                        # how many tasks there are to be; change it by: sked scale helloworld 3

task_definitions:
  - name: helloworld
    version: 1                        # raise it with every change of what stands below
    provide_port: true                # each task gets a free port of its host
    memory: {memory}                        # MB
    containers:
      - name: helloworld
        type: {kind}
        executor:
"""
_CHECK = """\
        checks:
          - {http: "http://127.0.0.1:$PROVIDED_PORT/", interval: 2s, timeout: 1s}
"""
_EXECUTORS = {
    "bash": (
        32,
        """\
          start: |                    # runs in a folder of the task's own
            mkdir -p www
            echo "Hello from $SKED_TASK_ID on $SKED_HOST" > www/index.html
            exec python3 -m http.server "$PORT" --bind 127.0.0.1 --directory www
""",
    ),
    "docker": (
        64,
        """\
          image: nginx:alpine
          container_port: 80          # the task's port of the host leads there
""",
    ),
}
"""Memory and the ``executor`` object by type. What needs nothing else comes first."""


def hello(installed: Collection[str], kind: str = "", *, file: str = "hello.yml") -> str:
    """The text of a manifest for executor ``kind``, or else the first of those ``installed`` that needs least.
    ``file``: where it is to stand. Raises PluginError if there is none that this knows how to use."""
    usable = [name for name in _EXECUTORS if name in installed]
    if kind and kind not in usable:
        there = ", ".join(usable) or "none"
        raise PluginError(f"no hello-world for executor {kind}", hint=f"there is one for: {there}")
    if not usable:
        raise PluginError("no executor is installed that a hello-world is known for", hint="pip install sked-bash")
    chosen = kind or usable[0]
    memory, executor = _EXECUTORS[chosen]
    return _HEAD.format(file=file, memory=memory, kind=chosen) + executor + _CHECK
