"""What signed records cost: signatures, checks and encodings of one task, each second of one core.

.venv/bin/python benchmarks/signing.py
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from sked_core.clock import SystemClock
from sked_core.interfaces.store import Revision
from sked_core.model import codec
from sked_core.model.policy import SigningGate
from sked_core.runtime.agent.issued_feed import Record
from sked_core.runtime.agent.verifying import Verifier
from sked_core.runtime.signing import Signer, new_private, public_of
from sked_core.testing.builders import a_check, a_container, a_definition, a_task

SECONDS = 2.0


def per_second(act: Callable[[], object]) -> float:
    count, begun = 0, time.process_time()
    while (passed := time.process_time() - begun) < SECONDS:
        act()
        count += 1
    return count / passed


def main() -> None:
    container = a_container(checks=[a_check(http="http://127.0.0.1:$PROVIDED_PORT")])
    task = a_task("h1", 0, a_definition(tags=["urlprefix-/web"], containers=[container]))
    with tempfile.TemporaryDirectory() as folder:
        key = Path(folder) / "key.pem"
        new_private(key)
        signer = Signer(key, SystemClock())
        verifier = Verifier(SigningGate(required=True, keys=[public_of(key)]), Path(folder), "h1", SystemClock())
        signed = signer.signed(task, "uid")
        raw = codec.encode(signed)
        record = Record(signed, raw, Revision(1), codec.digest(signed), 60.0)
        verifier.check(record, "uid")
        print(f"record: {len(codec.encode(task))} bytes, signed {len(raw)}")
        for what, act in (
            ("encode", lambda: codec.encode(task)),
            ("sign", lambda: signer.signed(task, "uid")),
            ("decode", lambda: codec.decode(raw, type(task))),
            ("check", lambda: verifier.check(record, "uid")),
        ):
            print(f"{what:7} {per_second(act):10,.0f} a second")


if __name__ == "__main__":
    main()
