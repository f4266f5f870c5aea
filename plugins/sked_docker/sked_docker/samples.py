"""What the kit of executors tries the ``docker`` executor with: containers of an image that has a shell and httpd."""

from __future__ import annotations

import docker

from sked_core.plugin import ExecutorContext
from sked_core.testing.samples import ExecutorSample
from sked_docker import creation as labels
from sked_docker.executor import DockerExecutor

IMAGE = "busybox:latest"


def docker_sample(image: str = IMAGE) -> ExecutorSample:
    """The sample, with another image where the engine can't get this one."""
    return ExecutorSample(
        type="docker",
        make=DockerExecutor,
        stays={"image": image, "cmd": "sleep 1000"},
        wrong=[
            {},
            {"image": ""},
            {"image": 5, "cmd": {"sh": 1}},
            {"image": image, "flags": ["--no-such-flag", "privileged"]},
            {"image": image, "ports": ["x:y:z"], "env": ["=1"], "volumes": ["relative"]},
        ],
        script=lambda script: {"image": image, "cmd": ["sh", "-c", script]},
        unstartable={"image": image, "entry": "/no/such/program", "flags": ["--init=false"]},
        denied={"image": image, "flags": ["--privileged"]},
        listens=lambda port: {"image": image, "cmd": "httpd -f -p 80 -h /etc", "ports": [f"{port}:80"]},
        limits=("memory", "pids"),
        census=_count,
        needs=_lacks,
    )


def _lacks() -> str:
    try:
        client = docker.from_env()
    except docker.errors.DockerException as error:
        return f"a Docker engine: {str(error)[:200]}"
    try:
        client.ping()
    except (docker.errors.DockerException, OSError) as error:
        return f"a Docker engine that answers: {str(error)[:200]}"
    finally:
        client.close()
    return ""


def _count(context: ExecutorContext) -> int:
    client = docker.from_env().api
    try:
        mine = [f"{labels.STORE}={context.store_uid}", f"{labels.HOST}={context.host}"]
        return len(client.containers(all=True, filters={"label": mine}))
    finally:
        client.close()
