"""What `sked plugins check` tries this with: the etcd that ETCDCTL_ENDPOINTS names, below a prefix of its own."""

from __future__ import annotations

import os
from collections.abc import Sequence

from sked_core.testing.samples import Sample, StoreSample
from sked_core.testing.scratch import Scratch
from sked_etcd.plugin import open_store

URL = "etcd://"
"""Whatever the environment says."""
VARIABLE = "ETCDCTL_ENDPOINTS"
TOO_LARGE = 1536 * 1024
"""What etcd takes as a request unless it was told otherwise."""


def samples() -> Sequence[Sample]:
    """One of the store."""
    scratch = Scratch(lambda: open_store(URL))

    def needs() -> str:
        if not os.environ.get(VARIABLE):
            return f"{VARIABLE}: an etcd in which keys below sked-check/ may be written"
        refused = scratch.refused()
        return f"an etcd that answers at {VARIABLE}: {refused}" if refused else ""

    return [
        StoreSample(scheme="etcd", fresh=scratch.fresh, clear=scratch.clear, needs=needs, too_large=TOO_LARGE),
    ]
