"""What goes wrong in a simulated cluster. Each method is one fault; it returns what happened, "" if nothing could."""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING

from sked_core.testing.sim.engine import EngineFaults
from sked_core.testing.sim.processes import Process, SimAgent
from sked_core.testing.sim.store import Copy, Faults

if TYPE_CHECKING:
    from sked_core.testing.sim.scene import SimHost
    from sked_core.testing.sim.world import World

MOST_SCHEDULERS = 4


class Nemesis:
    """Whoever breaks things, by dice."""

    def __init__(self, world: World, dice: Random) -> None:
        self.world, self.dice = world, dice
        self._copies: list[Copy] = []

    def _process(self) -> Process | None:
        return self.dice.choice(self.world.living) if self.world.living else None

    def _host(self, *, up: bool = True) -> SimHost | None:
        found = [host for host in self.world.hosts.values() if host.up == up]
        return self.dice.choice(found) if found else None

    # --- processes -------------------------------------------------------------------------------------------------

    def kill(self) -> str:
        """kill -9, between two calls."""
        process = self._process()
        if process is None:
            return ""
        self.world.kill(process)
        return f"kills {process.name}"

    def doom(self) -> str:
        """kill -9 at one of the next calls, before or after it is carried out."""
        process = self._process()
        if process is None:
            return ""
        process.waits_for = self.dice.choice(("", "commit", "start", "stop"))
        process.doom = self.dice.randrange(1, 4 if process.waits_for else 12)
        return f"will kill {process.name} at its {process.waits_for or 'call'} number {process.doom} from now"

    def nap(self) -> str:
        """Pause a process in the middle: right before one of its next calls."""
        process = self._process()
        if process is None:
            return ""
        process.waits_for = self.dice.choice(("", "commit", "commit"))
        process.nap = self.dice.choice((1, 2, 2, 3)) if process.waits_for else self.dice.randrange(1, 12)
        return f"will pause {process.name} at its {process.waits_for or 'call'} number {process.nap} from now"

    def pause(self) -> str:
        process = self._process()
        if process is None:
            return ""
        seconds = self.dice.choice((5.0, 12.0, 20.0, 40.0))
        process.paused_until = self.world.clock.now + seconds
        return f"pauses {process.name} for {seconds:g} s"

    def start(self) -> str:
        """Start what was killed, or one more scheduler."""
        idle = [host for host in self.world.hosts.values() if host.up and host.agent is None]
        if idle and self.dice.random() < 0.7:
            host = self.dice.choice(idle)
            self.world.start_agent(host)
            return f"starts the agent of {host.name}"
        if len(self.world.schedulers()) >= MOST_SCHEDULERS:
            return ""
        return f"starts scheduler {self.world.start_scheduler().name}"

    def stop_politely(self) -> str:
        """End a process as SIGTERM does: its lease is given back."""
        process = self._process()
        if process is None or process.under_way:
            return ""
        if isinstance(process, SimAgent):
            process.loop.disk.unlock()
        process.doom = process.nap = 0
        process.give_back()
        self.world.kill(process, how="ends")
        return f"stops {process.name}"

    def swap(self) -> str:
        """Kill an agent and start it again at once."""
        agents = self.world.agents()
        if not agents:
            return ""
        agent = self.dice.choice(agents)
        if agent.under_way:
            return ""
        self.world.kill(agent)
        self.world.start_agent(agent.host)
        return f"starts the agent of {agent.host.name} again"

    # --- the store -------------------------------------------------------------------------------------------------

    def cut(self) -> str:
        """Cut a process off from the store, or let it back."""
        process = self._process()
        if process is None:
            return ""
        process.client.cut = not process.client.cut
        if not process.client.cut:
            process.reconnect()
        return f"{'cuts' if process.client.cut else 'lets'} {process.name} {'off' if process.client.cut else 'back'}"

    def cut_agents(self) -> str:
        """Cut all agents off at once (F23)."""
        for agent in self.world.agents():
            agent.client.cut = True
        return "cuts all agents off"

    def outage(self) -> str:
        self.world.store.down = not self.world.store.down
        if not self.world.store.down:
            for process in self.world.living:
                process.reconnect()
        return "stops the store" if self.world.store.down else "starts the store"

    def lossy(self) -> str:
        """Have calls get lost, or all go well again."""
        if self.world.store.faults.any:
            self.world.store.faults = Faults()
            return "has all calls go well"
        dropped, lost, late = (self.dice.choice((0.0, 0.05, 0.2)) for _ in range(3))
        self.world.store.faults = Faults(dropped, lost, late, slow=self.dice.choice((0.0, 0.0, 0.05)))
        return f"has calls get lost: {self.world.store.faults}"

    def deliver(self) -> str:
        if not self.world.store.late:
            return ""
        self.world.deliver()
        return "lets a late write arrive"

    def copy(self) -> str:
        """Take a backup of the data."""
        self._copies.append(self.world.store.copy())
        return "takes a backup"

    def wipe(self) -> str:
        self.world.store.reset()
        self.world.look()
        return "wipes the store"

    def restore(self) -> str:
        """Set the data back to a backup."""
        if not self._copies:
            return ""
        self.world.store.reset(self.dice.choice(self._copies))
        self.world.look()
        return "sets the store back to a backup"

    def accept(self) -> str:
        """An operator finds that the data is as good as it gets, and starts agents again with --accept-store."""
        if any(agent.under_way for agent in self.world.agents()) or not self.world.accept():
            return ""
        return "accepts the store as it is"

    # --- hosts and engines -----------------------------------------------------------------------------------------

    def power(self) -> str:
        """Switch a host off, or on again."""
        down = self._host(up=False)
        if down is not None and self.dice.random() < 0.6:
            self.world.power_on(down)
            return f"switches {down.name} on"
        host = self._host()
        if host is None or (host.agent is not None and host.agent.under_way):
            return ""
        self.world.power_off(host)
        return f"switches {host.name} off"

    def engine(self) -> str:
        """Have an engine fail in some way, or work again."""
        host = self._host()
        if host is None:
            return ""
        if host.engine.faults != EngineFaults():
            host.engine.faults = EngineFaults()
            return f"has the engine of {host.name} work again"
        kind = self.dice.choice(("down", "failing", "unknown", "blind", "stuck"))
        chance = self.dice.choice((0.3, 0.8))
        host.engine.faults = EngineFaults()
        setattr(host.engine.faults, kind, True if kind == "down" else chance)
        return f"has the engine of {host.name} fail: {kind} {'' if kind == 'down' else chance}"

    def refuse(self) -> str:
        """Have a host refuse a service, or no more."""
        host = self._host()
        if host is None:
            return ""
        if host.engine.refuses:
            host.engine.refuses.clear()
            return f"has {host.name} take all again"
        services = [service.name for service in self.world.judge.mirror.services()]
        if not services:
            return ""
        host.engine.refuses.add(self.dice.choice(services))
        return f"has {host.name} refuse {', '.join(host.engine.refuses)}"

    def crash(self) -> str:
        """End a container, or all of a host."""
        host = self._host()
        running = [one for one in host.engine.containers.values() if one.running] if host else []
        if host is None or not running:
            return ""
        chosen = running if self.dice.random() < 0.2 else [self.dice.choice(running)]
        for one in chosen:
            host.engine.end(one, "killed by signal 9")
        return f"kills {len(chosen)} containers of {host.name}"

    def sicken(self) -> str:
        """Have a container be unhealthy from now on."""
        host = self._host()
        running = [one for one in host.engine.containers.values() if one.running] if host else []
        if not running:
            return ""
        one = self.dice.choice(running)
        one.sick = True
        self.world.health_version += 1
        return f"makes {one.handle.task_id} ill"

    def blur(self) -> str:
        """Have health be unknown now and then, or always known."""
        self.world.registry.failing = 0.0 if self.world.registry.failing else self.dice.choice((0.1, 0.5, 1.0))
        return f"has calls to the health provider fail: {self.world.registry.failing}"

    def drag(self) -> str:
        """Have jobs of agents take long, or not."""
        self.world.lasting = 0.0 if self.world.lasting else self.dice.choice((0.1, 0.5))
        return f"has jobs of agents take long: {self.world.lasting}"

    def mix(self) -> str:
        """Have others do something between any two calls, or not."""
        self.world.mixing = 0.0 if self.world.mixing else self.dice.choice((0.1, 0.4))
        return f"has others act in the middle of calls: {self.world.mixing}"
