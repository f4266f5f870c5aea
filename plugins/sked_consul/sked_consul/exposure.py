"""Whether a Consul that other machines reach lets anybody in."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from typing import Any

from sked_consul.address import Address
from sked_consul.client import Client
from sked_core.plugin import Denied, beyond_this_machine


def unguarded(address: Address) -> list[tuple[str, str]]:
    """What whoever reaches ``address`` over a network can do or hear. Raises Unavailable."""
    if not beyond_this_machine(address.host):
        return []
    found = []
    if not address.secure:
        remedy = "use consul+https://, with CONSUL_CACERT for an authority of your own"
        found.append((f"what goes to Consul at {address} can be read on the way, tokens too", remedy))
    stranger = Client(replace(address, token="", token_file=""), connections=1)
    try:
        with suppress(Denied):  # as it should be
            _, pairs = stranger.fetch("/v1/kv/config/", list[Any], [("recurse", ""), ("keys", "")])
            if pairs is None:  # nothing there, or nothing that may be seen
                stranger.fetch("/v1/kv/config/", list[Any], [("consistent", "")])
            what = f"Consul at {address} answers WITHOUT A TOKEN: whoever reaches it may run tasks on every host"
            remedy = 'acl { enabled = true, default_policy = "deny" }, and rights: docs/installing.md'
            found.append((what, remedy))
    finally:
        stranger.http.close()
    return found
