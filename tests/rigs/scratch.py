"""Whether a sample of a store keeps to a part of it, and leaves nothing there."""

from __future__ import annotations

import secrets
from pathlib import Path
from typing import Any

from sked_core.interfaces.store import Delete, Put, Store
from sked_core.testing.needed import lacking


def keeps_to_itself(sample: Any, whole: Store, folder: Path) -> None:
    """``sample``: one that can be tried, of the store that ``whole`` is a client of, and closes."""
    assert lacking(sample) == ""
    name = secrets.token_hex(8)
    ours, beside = f"test-{name}/kept", f"sked-check/{name}/kept"  # of others, and of another check
    whole.commit([Put(ours, b"1"), Put(beside, b"1")])
    try:
        revisions = [whole.read(key).entries[key].revision for key in (ours, beside)]
        before = {key for key in whole.read("sked-check/").entries if name in key}
        client = sample.fresh(folder)()
        assert client.read("").entries == {}
        client.commit([Put(name, b"x")])
        client.commit([Put(f"{name}/{number}", b"x") for number in range(client.max_ops)])
        client.close()
        assert len([key for key in whole.read("sked-check/").entries if name in key]) > len(before)
        sample.clear(folder)
        sample.clear(folder)
        assert {key for key in whole.read("sked-check/").entries if name in key} == before
        assert [whole.read(key).entries[key].revision for key in (ours, beside)] == revisions
    finally:
        whole.commit([Delete(ours), Delete(beside)])
        whole.close()
