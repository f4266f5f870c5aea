"""Whether an etcd that other machines reach lets anybody in."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace

from sked_core.plugin import Denied, beyond_this_machine
from sked_etcd import messages
from sked_etcd.address import Address
from sked_etcd.client import Client


def unguarded(address: Address) -> list[tuple[str, str]]:
    """What whoever reaches ``address`` over a network can do or hear. Raises Unavailable."""
    if not any(beyond_this_machine(member.rpartition(":")[0].strip("[]")) for member in address.members):
        return []
    found = []
    if not address.secure:
        remedy = "use etcd+https://, with ETCDCTL_CACERT for an authority of your own"
        found.append((f"what goes to etcd at {address} can be read on the way, passwords too", remedy))
    stranger = Client(replace(address, user="", password="", user_file=""))
    try:
        with suppress(Denied):  # as it should be
            stranger.call(messages.RANGE, messages.range_request(b"config/", limit=1), messages.range_answer)
            if not address.client_cert:  # else etcd may have asked for it
                what = f"etcd at {address} answers WITHOUT A USER: whoever reaches it may run tasks on every host"
                remedy = "etcdctl auth enable, with the roles of packaging/etcd/roles.sh: docs/installing.md"
                found.append((what, remedy))
    finally:
        stranger.close()
    return found
