"""How host ports are numbered and named."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from sked_core.model.ports import PROTOCOLS, Binding, bindings_of, counted, port_name

bindings = st.builds(
    Binding, st.integers(1, 65535), st.sampled_from(["", "127.0.0.1", "::1"]), st.sampled_from(PROTOCOLS)
)


@given(bindings, bindings)
def test_two_bindings_are_counted_as_one_port_just_where_port_and_protocol_are_the_same(
    one: Binding, two: Binding
) -> None:
    same = (one.port, one.protocol) == (two.port, two.protocol)
    assert (counted(one.number) == counted(two.number)) == same
    assert (port_name(one.number) == port_name(two.number)) == same


@given(bindings)
def test_only_a_tcp_port_on_every_address_has_its_own_number(one: Binding) -> None:
    assert (one.number == one.port) == (one.protocol == "tcp" and not one.address)
    assert one.number == one.port or one.number > 65535
    assert port_name(one.number) == (str(one.port) if one.protocol == "tcp" else f"{one.port}/{one.protocol}")


class Old:
    """An executor from before there were bindings."""

    def ports(self, spec: object, port: int) -> frozenset[int]:
        return frozenset({80, port})


class New(Old):
    def bindings(self, spec: object, port: int) -> list[Binding]:
        return [Binding(53, "127.0.0.1", "udp")]


def test_an_executor_that_only_tells_ports_binds_them_on_every_address() -> None:
    assert bindings_of(Old(), {}, 20000) == {Binding(80), Binding(20000)}
    assert bindings_of(New(), {}, 20000) == {Binding(53, "127.0.0.1", "udp")}
