"""Which ports of this machine a task could bind, found out with real sockets of strangers."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from sked_core.model.ports import Binding
from sked_core.runtime.agent import host_facts, host_ports
from sked_core.runtime.agent.host_ports import taken_ports
from sked_core.runtime.agent.settings import AgentSettings

V4, V6 = socket.AF_INET, socket.AF_INET6
Hold = Callable[..., int]


def has_ipv6() -> bool:
    try:
        with socket.socket(V6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True


needs_ipv6 = pytest.mark.skipif(not has_ipv6(), reason="this machine has no IPv6")


@pytest.fixture
def hold() -> Iterator[Hold]:
    """Have a stranger hold a port, any that is free, on an address; returns it."""
    with contextlib.ExitStack() as stack:

        def holding(address: str, *options: tuple[int, int], udp: bool = False, port: int = 0) -> int:
            family = V6 if ":" in address else V4
            one = stack.enter_context(socket.socket(family, socket.SOCK_DGRAM if udp else socket.SOCK_STREAM))
            if family == V6:
                one.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
            for level, option in options:
                one.setsockopt(level, option, 1)
            one.bind((address, port))
            if not udp:
                one.listen()
            return int(one.getsockname()[1])

        yield holding


ONLY6 = (socket.IPPROTO_IPV6, socket.IPV6_V6ONLY)
REUSE = [(socket.SOL_SOCKET, socket.SO_REUSEADDR), (socket.SOL_SOCKET, socket.SO_REUSEPORT)]


@pytest.mark.parametrize("udp", [False, True], ids=["tcp", "udp"])
class TestWhoIsInTheWay:
    """``bound``: what a task would bind; ``held``: where a stranger has the same port."""

    @pytest.mark.parametrize("held", ["127.0.0.1", "127.0.0.9", "0.0.0.0"])
    @pytest.mark.parametrize("bound", ["", "0.0.0.0", "::"])
    def test_of_every_address_is_anybody_on_one_of_them(self, hold: Hold, udp: bool, bound: str, held: str) -> None:
        self.is_taken(hold(held, udp=udp), bound, udp, held)

    @needs_ipv6
    @pytest.mark.parametrize("held", ["::1", "::"])
    @pytest.mark.parametrize("bound", ["", "::", "::1"])
    def test_of_ipv6_is_who_listens_by_ipv6_alone(self, hold: Hold, udp: bool, bound: str, held: str) -> None:
        self.is_taken(hold(held, ONLY6, udp=udp), bound, udp, held)

    @needs_ipv6
    @pytest.mark.parametrize("bound", ["127.0.0.1", "0.0.0.0", "::1"])
    def test_of_one_address_is_who_listens_on_all_of_them(self, hold: Hold, udp: bool, bound: str) -> None:
        self.is_taken(hold("::", udp=udp), bound, udp, "::")

    @pytest.mark.parametrize("bound", ["127.0.0.1", "::1"])
    def test_of_one_address_is_not_who_listens_on_another(self, hold: Hold, udp: bool, bound: str) -> None:
        port = hold("127.0.0.9", udp=udp)
        assert taken_ports([Binding(port, bound, "udp" if udp else "tcp")]) == {}

    @needs_ipv6
    def test_of_ipv4_is_not_who_listens_by_ipv6_alone(self, hold: Hold, udp: bool) -> None:
        port = hold("::", ONLY6, udp=udp)
        assert taken_ports([Binding(port, "127.0.0.1", "udp" if udp else "tcp")]) == {}

    def test_of_one_protocol_is_not_who_has_the_other(self, hold: Hold, udp: bool) -> None:
        port = hold("0.0.0.0", udp=udp)
        assert taken_ports([Binding(port, "", "tcp" if udp else "udp")]) == {}

    def test_are_those_too_who_would_share_the_port(self, hold: Hold, udp: bool) -> None:
        self.is_taken(hold("127.0.0.1", *REUSE, udp=udp), "", udp, "127.0.0.1")

    def test_are_all_told_that_hold_something(self, hold: Hold, udp: bool) -> None:
        ports = {hold("127.0.0.1", udp=udp) for _ in range(3)}
        protocol = "udp" if udp else "tcp"
        assert {one.port for one in taken_ports([Binding(port, "", protocol) for port in ports])} == ports

    def is_taken(self, port: int, bound: str, udp: bool, held: str) -> None:
        binding = Binding(port, bound, "udp" if udp else "tcp")
        name = psutil.Process().name()
        assert taken_ports([binding]) == {binding: f"{name}, pid {os.getpid()}, on {held}"}

    def test_leaves_the_port_as_it_was(self, hold: Hold, udp: bool) -> None:
        with socket.socket(V4, socket.SOCK_DGRAM if udp else socket.SOCK_STREAM) as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        assert taken_ports([Binding(port, "", "udp" if udp else "tcp")]) == {}
        hold("0.0.0.0", udp=udp, port=port)


def test_a_connection_that_goes_out_from_the_port_is_in_the_way(hold: Hold) -> None:
    server = hold("127.0.0.1")
    with socket.socket() as client:
        client.connect(("127.0.0.1", server))
        binding = Binding(client.getsockname()[1])
        assert taken_ports([binding])[binding].endswith(f"pid {os.getpid()}, for a connection")
        assert taken_ports([Binding(binding.port, "127.0.0.9")]) == {}


def test_connections_that_have_ended_are_not(hold: Hold) -> None:
    with socket.socket() as server:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        server.bind(("127.0.0.1", 0))
        server.listen()
        port = server.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port)) as client:
            accepted, _ = server.accept()
            accepted.close()  # whoever closes first keeps the TIME_WAIT
            assert client.recv(1) == b""
    waiting = [one for one in psutil.net_connections("tcp") if one.laddr.port == port]
    assert [one.status for one in waiting] == [psutil.CONN_TIME_WAIT]
    assert taken_ports([Binding(port)]) == {}


def test_the_task_that_holds_it_is_named() -> None:
    program = (
        "import socket, sys; s = socket.socket(); s.bind(('127.0.0.1', 0)); s.listen(); "
        "print(s.getsockname()[1], flush=True); sys.stdin.read()"
    )
    env = {**os.environ, "SKED_TASK_ID": "default-web-1-0"}
    with subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=env, text=True
    ) as other:
        assert other.stdout is not None
        port = int(other.stdout.readline())
        (who,) = taken_ports([Binding(port)]).values()
        assert who.endswith(f"pid {other.pid}, of task default-web-1-0, on 127.0.0.1")
        other.communicate("")


def test_a_machine_without_ipv6_is_tried_by_ipv4_alone(hold: Hold, monkeypatch: pytest.MonkeyPatch) -> None:
    honest = socket.socket

    def without(family: int = V4, *rest: Any) -> socket.socket:
        if family == V6:
            raise OSError(errno.EAFNOSUPPORT, "Address family not supported by protocol")
        return honest(family, *rest)

    port = hold("127.0.0.1")
    monkeypatch.setattr(socket, "socket", without)
    assert [one.port for one in taken_ports([Binding(port)])] == [port]
    assert taken_ports([Binding(port, "127.0.0.9"), Binding(port, "::1")]) == {}


def test_an_address_that_is_not_this_machines_is_the_engines_to_refuse() -> None:
    assert taken_ports([Binding(5000, "192.0.2.1"), Binding(5000, "2001:db8::1")]) == {}


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_who_may_not_bind_the_port_looks_who_listens_there() -> None:
    free = next(port for port in range(600, 1000) if taken_ports([Binding(port)]) == {})
    with socket.socket() as one:
        one.bind(("127.0.0.1", free))
        one.listen()
        os.seteuid(65534)
        try:
            with pytest.raises(PermissionError), socket.socket() as probe:
                probe.bind(("127.0.0.1", free))
            assert [one.port for one in taken_ports([Binding(free), Binding(free, "127.0.0.9")])] == [free]
            assert taken_ports([Binding(free, "127.0.0.9"), Binding(free + 1)]) == {}
        finally:
            os.seteuid(0)


class TestOutgoing:
    @pytest.fixture
    def says(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], list[tuple[int, int]]]:
        def says(given: str, reserved: str) -> list[tuple[int, int]]:
            for name, text in (("EPHEMERAL", given), ("RESERVED", reserved)):
                (tmp_path / name).write_text(text)
                monkeypatch.setattr(host_ports, name, tmp_path / name)
            return host_ports.outgoing_ports()

        return says

    @pytest.mark.parametrize(
        ("given", "reserved", "left"),
        [
            ("32768\t60999\n", "\n", [(32768, 60999)]),
            ("1024 65535", "20000-29999", [(1024, 19999), (30000, 65535)]),
            ("1024 65535", "8080,20000-29999,1024", [(1025, 8079), (8081, 19999), (30000, 65535)]),
            ("20000 20009", "20000-29999", []),
            ("20000 20009", "1-20005,20004-20008", [(20009, 20009)]),
            ("", "20000-29999", [(32768, 60999)]),
        ],
    )
    def test_what_the_kernel_gives_to_connections(
        self, says: Any, given: str, reserved: str, left: list[tuple[int, int]]
    ) -> None:
        assert says(given, reserved) == left

    def test_a_range_that_is_theirs_as_well_is_doubted_with_the_remedy(self, says: Any, tmp_path: Path) -> None:
        settings = AgentSettings(host="h", state_dir=tmp_path, port_range=(20000, 39999))
        says("32768 60999", "8080\n")
        (doubt,) = host_facts.doubts(settings, host_facts)
        assert doubt.startswith("ports 32768-39999 of those for tasks (20000-39999) are given to outgoing connections")
        assert "sysctl -w net.ipv4.ip_local_reserved_ports=8080,20000-39999 " in doubt
        says("32768 60999", "8080,20000-39999\n")
        assert host_facts.doubts(settings, host_facts) == []

    def test_listeners_among_them_are_told_only_where_tasks_get_their_ports(
        self, says: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        says("32768 60999", "33060\n")
        monkeypatch.setattr(host_facts, "ports_in_use", lambda: {22, 20001, 33060, 41000, 50000, 61000})
        settings = AgentSettings(host="h", state_dir=tmp_path, port_range=(40000, 42000))
        host = host_facts.describe(settings, host_facts, own_ports={20001}, executors={})
        assert (host.ports, host.port_range) == ([22, 33060, 41000, 61000], (40000, 42000))
