"""A DynamoDB Local of a test's own."""

from __future__ import annotations

import contextlib
import http.client
from collections.abc import Mapping
from pathlib import Path

from rigs.local import Server, free_ports

POLICY = Path(__file__).with_name("loopback.policy")


def answers(port: int) -> bool:
    """Whether a DynamoDB takes requests there. It refuses an unsigned one, but as only a DynamoDB does."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    with contextlib.suppress(OSError, http.client.HTTPException):
        connection.request("GET", "/")
        return b"dynamodb" in connection.getresponse().read()
    return False


class PrivateDynamo(Server):
    """A DynamoDB Local with a data folder of its own, which a test may pause, kill, wipe and start again.

    ``endpoint`` is its URL. ``program`` is the folder of the program, ``settings`` its flags: ``sharedDb=True``.
    """

    def __init__(self, program: str, folder: Path, settings: Mapping[str, object]) -> None:
        (port,) = free_ports(1)
        self.address = f"127.0.0.1:{port}"
        self.endpoint = f"http://{self.address}"
        command = [
            *("env", "-C", str(folder)),  # where it leaves a note of its own
            *("java", "-Xmx256m", "-Djava.security.manager", f"-Djava.security.policy=={POLICY}"),
            *(f"-Djava.library.path={program}/DynamoDBLocal_lib", "-jar", f"{program}/DynamoDBLocal.jar"),
            *("-disableTelemetry", "-dbPath", str(folder / "data"), "-port", str(port)),
            *(f"-{name}" for name, wanted in settings.items() if wanted),
        ]
        super().__init__(f"DynamoDB Local at {self.endpoint}", command, folder, lambda: answers(port))

    def launch(self) -> None:
        self.data.mkdir(exist_ok=True)
        super().launch()
