"""Memory of an agent with the docker executor loaded: idle, with 50 and with 200 bash tasks, all processes counted.

python benchmarks/memory.py

The agent runs alone (no scheduler in its process) on an embedded store; tasks are one ``sleep`` each. The agent's
memory is its RSS, that of the tasks their PSS: the pages of libc are not spent anew by every sleep.
"""

from __future__ import annotations

import subprocess
import time

from bed import SKED, bed, proportional_mb, resident_mb, until

SETTLE_SECONDS = 10.0


def main() -> None:
    with bed() as where:
        # The bed's own process schedules; a second agent, which is measured, runs the tasks.
        where.sked("cordon", where.host)
        name = f"{where.host}-measured"
        own = ["--policy", "development", "--host", name, "--state-dir", str(where.folder / "measured")]
        with (where.folder / "measured.log").open("wb") as log:
            agent = subprocess.Popen([SKED, *where.options, "run", "agent", *own], stdout=log, stderr=log)
        try:
            until("the host", lambda: any(host["name"] == name for host in where.items("hosts")))
            time.sleep(SETTLE_SECONDS)
            idle = resident_mb([agent.pid])
            word = "reached" if idle <= 45 else "missed"
            print(f"agent, 0 tasks: {idle:.1f} MB (goal: under 45): {word}")
            for count in (50, 200):
                where.apply("m", where.bash(), desired=count)
                until(f"{count} tasks", lambda count=count: len(where.began()) == count)
                time.sleep(SETTLE_SECONDS)
                tasks = [pid for pid, _ in where.began()]
                grown = resident_mb([agent.pid])
                each = (grown - idle + proportional_mb(tasks)) / count
                word = "reached" if each <= 1 else "missed"
                print(f"agent, {count} tasks: {grown:.1f} MB; with its tasks {each:.2f} MB more per task ", end="")
                print(f"(goal: under 1): {word}; their RSS, shared pages counted {count} times: ", end="")
                print(f"{resident_mb(tasks) / count:.2f} MB each")
                where.empty()
        finally:
            agent.terminate()
            agent.wait(30)


if __name__ == "__main__":
    main()
