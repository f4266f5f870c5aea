"""What had better be otherwise in how etcd is run: a store that fills up takes no more writes one day."""

from __future__ import annotations

from sked_etcd import messages
from sked_etcd.client import Client
from sked_etcd.failures import StartOver

DEFAULT_QUOTA = 2 * 1024**3
"""etcd's own, of which one before 3.6 says nothing (https://etcd.io/docs/v3.6/op-guide/maintenance/#space-quota)."""
FULL_SHARE = 0.8
OLD_REVISIONS = 100_000
"""So many without any compaction are no accident of a young store."""
COMPACT = "etcd --auto-compaction-retention=1h  (or now: etcdctl compact REVISION, then etcdctl defrag)"


def doubts(client: Client) -> list[tuple[str, str]]:
    """Each with what to do about it. Raises what a call raises."""
    found: list[tuple[str, str]] = []
    size, quota, alarms = client.call(messages.STATUS, b"", messages.status_sizes)
    if "NOSPACE" in alarms:
        remedy = "compact and defragment it, then:  etcdctl alarm disarm"
        found.append(("etcd has used up its quota and takes no more writes (alarm NOSPACE)", remedy))
    elif size > FULL_SHARE * (quota or DEFAULT_QUOTA):
        found.append((f"etcd holds {size} bytes of the {quota or DEFAULT_QUOTA} that its quota allows", COMPACT))
    now = client.call(messages.RANGE, messages.range_request(b"sked", limit=1), messages.range_answer).revision
    if now > OLD_REVISIONS:
        try:
            client.call(messages.RANGE, messages.range_request(b"sked", limit=1, revision=1), messages.range_answer)
        except StartOver:
            return found  # the first revisions are gone: somebody compacts
        found.append((f"etcd was never compacted: it keeps all of {now} revisions", COMPACT))
    return found
