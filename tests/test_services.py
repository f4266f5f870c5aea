"""The fixtures of the root conftest.py do what they promise."""

import base64
import contextlib
import subprocess
import urllib.request

from rigs.etcd import call
from rigs.local import ask


def _put(http: str, key: str, value: bytes) -> None:
    request = urllib.request.Request(f"{http}/v1/kv/{key}", data=value, method="PUT")
    with urllib.request.urlopen(request, timeout=60) as answer:
        assert answer.read().strip() == b"true"


def _get(http: str, key: str, timeout: float = 5) -> bytes | None:
    with contextlib.suppress(OSError), urllib.request.urlopen(f"{http}/v1/kv/{key}?raw", timeout=timeout) as answer:
        return answer.read()
    return None


def test_the_shared_agent_answers(consul):
    address = consul.removeprefix("consul://")
    with urllib.request.urlopen(f"http://{address}/v1/status/leader", timeout=60) as answer:
        assert answer.read().strip() not in (b"", b'""')


def test_a_private_agent_survives_kill_and_pause_and_is_empty_after_a_wipe(private_consul):
    agent = private_consul()
    _put(agent.http, "color", b"blue")
    agent.kill()
    assert _get(agent.http, "color") is None
    agent.start()
    assert _get(agent.http, "color") == b"blue"
    agent.pause()
    assert _get(agent.http, "color", timeout=0.5) is None
    agent.resume()
    assert _get(agent.http, "color") == b"blue"
    agent.wipe()
    agent.start()
    assert _get(agent.http, "color") is None


def test_the_shared_etcd_answers(etcd):
    with urllib.request.urlopen(etcd.replace("etcd://", "http://") + "/version", timeout=60) as answer:
        assert b"etcdserver" in answer.read()


def _etcd_put(http: str, value: bytes) -> None:
    call(http, "kv/put", key=base64.b64encode(b"color").decode(), value=base64.b64encode(value).decode())


def _etcd_get(http: str, timeout: float = 5) -> bytes | None:
    found = call(http, "kv/range", timeout, key=base64.b64encode(b"color").decode()).get("kvs", [])
    return base64.b64decode(found[0]["value"]) if found else None


def test_a_private_etcd_survives_kill_and_pause_goes_back_to_a_snapshot_and_is_empty_after_a_wipe(
    private_etcd, tmp_path
):
    server = private_etcd(quota_backend_bytes=50_000_000)
    _etcd_put(server.http, b"blue")
    server.save(tmp_path / "blue")
    _etcd_put(server.http, b"red")
    server.kill()
    assert _etcd_get(server.http) is None
    server.start()
    assert _etcd_get(server.http) == b"red"
    server.pause()
    assert _etcd_get(server.http, timeout=0.5) is None
    server.resume()
    server.compact()
    old = ask(f"{server.http}/v3/kv/range", body=b'{"key": "Y29sb3I=", "revision": "2"}')
    assert (old, _etcd_get(server.http)) == (None, b"red")
    server.restore(tmp_path / "blue")
    server.start()
    assert _etcd_get(server.http) == b"blue"
    server.wipe()
    server.start()
    assert _etcd_get(server.http) is None


def test_the_busybox_image_runs(busybox_image):
    command = ["docker", "run", "--rm", "--net=none", busybox_image, "sh", "-c", "echo it runs"]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (ran.returncode, ran.stdout) == (0, "it runs\n")
