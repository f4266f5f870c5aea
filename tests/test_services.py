"""The fixtures of the root conftest.py do what they promise."""

import contextlib
import subprocess
import urllib.request


def _put(http: str, key: str, value: bytes) -> None:
    request = urllib.request.Request(f"{http}/v1/kv/{key}", data=value, method="PUT")
    with urllib.request.urlopen(request, timeout=5) as answer:
        assert answer.read().strip() == b"true"


def _get(http: str, key: str, timeout: float = 5) -> bytes | None:
    with contextlib.suppress(OSError), urllib.request.urlopen(f"{http}/v1/kv/{key}?raw", timeout=timeout) as answer:
        return answer.read()
    return None


def test_the_shared_agent_answers(consul):
    address = consul.removeprefix("consul://")
    with urllib.request.urlopen(f"http://{address}/v1/status/leader", timeout=5) as answer:
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


def test_the_busybox_image_runs(busybox_image):
    command = ["docker", "run", "--rm", "--net=none", busybox_image, "sh", "-c", "echo it runs"]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (ran.returncode, ran.stdout) == (0, "it runs\n")
