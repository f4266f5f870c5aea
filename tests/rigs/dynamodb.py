"""A DynamoDB Local of a test's own."""

from __future__ import annotations

import contextlib
import http.client
import subprocess
from pathlib import Path

from rigs.local import Server, free_ports

POLICY = Path(__file__).with_name("loopback.policy")


def answers(port: int) -> bool:
    """Whether a DynamoDB takes requests there. It refuses an unsigned one, but as only a DynamoDB does."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    with contextlib.suppress(OSError, http.client.HTTPException):
        connection.request("GET", "/")
        return b"dynamodb" in connection.getresponse().read()
    return False


class PrivateDynamo(Server):
    """A DynamoDB Local with a data folder of its own, which a test may pause, kill, wipe and start again.

    ``endpoint`` is its URL, ``program`` the folder of the program.
    """

    def __init__(self, program: str, folder: Path) -> None:
        (port,) = free_ports(1)
        self.address = f"127.0.0.1:{port}"
        self.endpoint = f"http://{self.address}"
        command = [
            *("env", "-C", str(folder)),  # where it leaves a note of its own
            *(
                "java",
                "-Xmx256m",
                "-XX:+UseSerialGC",
                "-XX:TieredStopAtLevel=1",
                f"-Djava.io.tmpdir={folder}",  # where it unpacks a library and leaves it
                "-Djava.security.manager",
                f"-Djava.security.policy=={POLICY}",
            ),
            *(f"-Djava.library.path={program}/DynamoDBLocal_lib", "-jar", f"{program}/DynamoDBLocal.jar"),
            *("-disableTelemetry", "-dbPath", str(folder / "data"), "-port", str(port)),
        ]
        super().__init__(f"DynamoDB Local at {self.endpoint}", command, folder, lambda: answers(port))

    def start(self, timeout: float = 120) -> None:
        """A Java on a busy machine takes its time."""
        super().start(timeout)

    def kill(self) -> None:
        """End it without warning to its clients, data kept. By SIGTERM first: it acknowledges a transaction before it
        has written it, and SIGKILL lost the last one in four of six tries with boto3 alone. Amazon's service does not.
        """
        if self._process is not None:
            self._process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(5)
        super().kill()

    def launch(self) -> None:
        self.data.mkdir(exist_ok=True)
        super().launch()
