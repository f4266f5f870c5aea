"""Pulling from a registry: a real one of a few lines, since only what it serves and what it is asked matters."""

import gzip
import hashlib
import io
import json
import tarfile
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import docker
import pytest

from sked_core.plugin import ExecutorError, State
from sked_docker.executor import DockerExecutor

MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"


class Registry:
    """Serves one image under every name and tag, by the distribution API; ``asked`` are the paths that it saw."""

    def __init__(self, image: bytes) -> None:
        self.asked: list[str] = []
        self.refusal = 0
        self._blobs: dict[str, bytes] = {}
        with tarfile.open(fileobj=io.BytesIO(image)) as saved:
            (listed,) = json.loads(self._member(saved, "manifest.json"))
            config = self._blob(self._member(saved, listed["Config"]), "application/vnd.docker.container.image.v1+json")
            packed = [gzip.compress(self._member(saved, name)) for name in listed["Layers"]]
        layers = [self._blob(layer, "application/vnd.docker.image.rootfs.diff.tar.gzip") for layer in packed]
        self.manifest = json.dumps({"schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": layers})
        registry = self

        class Answers(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                registry.asked.append(self.path)
                self.answer(*registry.find(self.path))

            do_HEAD = do_GET  # noqa: N815 -- the name that http.server looks for

            def answer(self, status: int, kind: str, body: bytes) -> None:
                self.send_response(status)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(body)))
                self.send_header("Docker-Content-Digest", f"sha256:{hashlib.sha256(body).hexdigest()}")
                self.end_headers()
                if self.command == "GET":
                    self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                """Not on the terminal of the tests."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Answers)
        self.address = f"127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def find(self, path: str) -> tuple[int, str, bytes]:
        if self.refusal:
            errors = json.dumps({"errors": [{"code": "DENIED", "message": "nobody\x1b[2J may"}]})
            return self.refusal, "application/json", errors.encode()
        if "/blobs/" in path:
            return 200, "application/octet-stream", self._blobs[path.rpartition("/")[2]]
        if "/manifests/" in path:
            return 200, MANIFEST, self.manifest.encode()
        return 200, "application/json", b"{}"

    @staticmethod
    def _member(saved: tarfile.TarFile, name: str) -> bytes:
        found = saved.extractfile(name)
        assert found is not None
        return found.read()

    def _blob(self, data: bytes, kind: str) -> dict[str, Any]:
        name = f"sha256:{hashlib.sha256(data).hexdigest()}"
        self._blobs[name] = data
        return {"mediaType": kind, "size": len(data), "digest": name}


@pytest.fixture
def registry(api: docker.APIClient, busybox_image: str) -> Iterator[Registry]:
    made = Registry(b"".join(api.get_image(busybox_image)))
    yield made
    made.server.shutdown()
    made.server.server_close()
    for image in api.images():
        for name in image["RepoTags"] or ():
            if name.startswith(made.address):
                api.remove_image(name, force=True)


def test_an_image_is_pulled_when_missing_and_not_asked_for_when_present(
    executor: DockerExecutor, make_task: Any, registry: Registry
) -> None:
    spec = {"image": f"{registry.address}/team/busybox:1", "cmd": "sleep 1000"}
    tasks = [make_task(spec, service=f"s{index}") for index in range(4)]

    def start(task: Any) -> Any:
        return executor.start(task, task.task_definition.containers[0], {})

    with ThreadPoolExecutor(4) as pool:
        handles = list(pool.map(start, tasks))
    assert {seen.state for seen in executor.inspect(handles).values()} == {State.RUNNING}
    assert "/v2/team/busybox/manifests/1" in registry.asked
    before = len(registry.asked)
    start(make_task(spec, service="later"))
    assert len(registry.asked) == before


def test_a_registry_that_refuses_is_a_permanent_error_with_its_words_made_harmless(
    executor: DockerExecutor, make_task: Any, registry: Registry
) -> None:
    registry.refusal = 403
    task = make_task({"image": f"{registry.address}/team/secret:1"})
    with pytest.raises(ExecutorError, match=r"can't be pulled: .*nobody.*may") as caught:
        executor.start(task, task.task_definition.containers[0], {})
    assert caught.value.permanent
    assert str(caught.value).isprintable()
    assert "docker login" in caught.value.hint
