"""The table of options, in every spelling, and that README.md tells the truth about it. No engine."""

import re
from pathlib import Path
from typing import Any

import pytest

from sked_docker.flags import ALIASES, FLAGS, REFUSED, Mistake, Setting, read

README = Path(__file__).resolve().parents[1] / "README.md"

VALUES: dict[str, tuple[str, Any]] = {
    "add-host": ("db=10.0.0.1", "db:10.0.0.1"),
    "annotation": ("a=b", {"a": "b"}),
    "blkio-weight": ("500", 500),
    "blkio-weight-device": ("/dev/sda:200", {"Path": "/dev/sda", "Weight": 200}),
    "cap-add": ("cap_net_admin", "NET_ADMIN"),
    "cap-drop": ("ALL", "ALL"),
    "cgroup-parent": ("/sked", "/sked"),
    "cgroupns": ("private", "private"),
    "cpu-period": ("100000", 100_000),
    "cpu-quota": ("50000", 50_000),
    "cpu-rt-period": ("1000", 1000),
    "cpu-rt-runtime": ("900", 900),
    "cpu-shares": ("512", 512),
    "cpus": ("1.5", 1_500_000_000),
    "cpuset-cpus": ("0,1", "0,1"),
    "cpuset-mems": ("0", "0"),
    "device": (
        "/dev/fuse:/dev/f:r",
        {"PathOnHost": "/dev/fuse", "PathInContainer": "/dev/f", "CgroupPermissions": "r"},
    ),
    "device-cgroup-rule": ("c 1:3 mr", "c 1:3 mr"),
    "device-read-bps": ("/dev/sda:1m", {"Path": "/dev/sda", "Rate": 1_048_576}),
    "device-read-iops": ("/dev/sda:100", {"Path": "/dev/sda", "Rate": 100}),
    "device-write-bps": ("/dev/sda:1m", {"Path": "/dev/sda", "Rate": 1_048_576}),
    "device-write-iops": ("/dev/sda:100", {"Path": "/dev/sda", "Rate": 100}),
    "dns": ("10.0.0.53", "10.0.0.53"),
    "dns-option": ("ndots:2", "ndots:2"),
    "dns-search": ("svc.test", "svc.test"),
    "domainname": ("svc.test", "svc.test"),
    "entrypoint": ("/bin/my app", ["/bin/my app"]),
    "env": ("A=b c", {"A": "b c"}),
    "expose": ("53/udp", {"53/udp": {}}),
    "gpus": ("all", {"Count": -1, "Capabilities": [["gpu"]]}),
    "group-add": ("audio", "audio"),
    "health-cmd": ("curl -f localhost", ["CMD-SHELL", "curl -f localhost"]),
    "health-interval": ("10s", 10_000_000_000),
    "health-retries": ("3", 3),
    "health-start-period": ("1m", 60_000_000_000),
    "health-timeout": ("500ms", 500_000_000),
    "hostname": ("web.test", "web.test"),
    "init": ("false", False),
    "ip": ("172.30.0.4", "172.30.0.4"),
    "ip6": ("2001:db8::4", "2001:db8::4"),
    "ipc": ("host", "host"),
    "isolation": ("default", "default"),
    "kernel-memory": ("64m", 67_108_864),
    "label": ("team=a=b", {"team": "a=b"}),
    "link": ("db:db", "db:db"),
    "link-local-ip": ("169.254.1.1", "169.254.1.1"),
    "log-driver": ("journald", "journald"),
    "log-opt": ("max-size=1m", {"max-size": "1m"}),
    "mac-address": ("92:d0:c6:0a:29:33", "92:d0:c6:0a:29:33"),
    "memory": ("1.5g", 1_610_612_736),
    "memory-reservation": ("64MiB", 67_108_864),
    "memory-swap": ("-1", -1),
    "memory-swappiness": ("10", 10),
    "mount": (
        "type=bind,src=/a,dst=/b,ro",
        {"Type": "bind", "Source": "/a", "Target": "/b", "ReadOnly": True, "BindOptions": {"Propagation": ""}},
    ),
    "network": ("host", "host"),
    "network-alias": ("db", "db"),
    "no-healthcheck": ("true", ["NONE"]),
    "oom-kill-disable": ("true", True),
    "oom-score-adj": ("-500", -500),
    "pid": ("host", "host"),
    "pids-limit": ("-1", -1),
    "platform": ("linux/amd64", "linux/amd64"),
    "privileged": ("true", True),
    "publish": ("127.0.0.1:53:5353/udp", {"5353/udp": [{"HostIp": "127.0.0.1", "HostPort": "53"}]}),
    "read-only": ("true", True),
    "restart": ("on-failure:3", {"Name": "on-failure", "MaximumRetryCount": 3}),
    "runtime": ("runc", "runc"),
    "security-opt": ("seccomp=unconfined", "seccomp=unconfined"),
    "shm-size": ("64m", 67_108_864),
    "stop-signal": ("SIGINT", "SIGINT"),
    "stop-timeout": ("30", 30),
    "storage-opt": ("size=1G", {"size": "1G"}),
    "sysctl": ("net.core.somaxconn=1024", {"net.core.somaxconn": "1024"}),
    "tmpfs": ("/run:size=64m", {"/run": "size=64m"}),
    "ulimit": ("nofile=1024:2048", {"Name": "nofile", "Soft": 1024, "Hard": 2048}),
    "user": ("1000:1000", "1000:1000"),
    "userns": ("host", "host"),
    "uts": ("host", "host"),
    "volume": ("data:/data:ro", "data:/data:ro"),
    "volume-driver": ("local", "local"),
    "volumes-from": ("other:ro", "other:ro"),
    "workdir": ("/srv", "/srv"),
}


def _one(items: list[str]) -> Setting:
    (found,) = read(items)
    assert isinstance(found, Setting), found
    return found


@pytest.mark.parametrize("flag", FLAGS, ids=lambda flag: flag.name)
def test_every_option_in_every_spelling(flag: Any) -> None:
    text, value = VALUES[flag.name]
    spellings = [[f"--{flag.name}={text}"]]
    if flag.switch:
        spellings += [[f"--{flag.name}"]] if text == "true" else []
    else:
        quoted = f'"{text}"' if " " in text else text
        spellings += [[f"--{flag.name} {quoted}"], [f"--{flag.name}", text], [f"--{flag.name}\t  {quoted}"]]
    if flag.short:
        spellings += [[f"-{flag.short} {quoted}"], [f"-{flag.short}", text], [f"-{flag.short}={text}"]]
        spellings += [[f"-{flag.short}{text}"]]
    for items in spellings:
        found = _one(items)
        assert (found.flag, found.value, found.index) == (flag, value, 0), items


def test_every_option_has_a_value_above_and_none_is_listed_twice() -> None:
    assert [flag.name for flag in FLAGS] == list(VALUES)
    shorts = [flag.short for flag in FLAGS if flag.short]
    assert len(shorts) == len(set(shorts))
    assert not set(VALUES) & set(REFUSED)


@pytest.mark.parametrize(("alias", "name"), ALIASES.items())
def test_other_names(alias: str, name: str) -> None:
    assert _one([f"--{alias}={VALUES[name][0]}"]).flag.name == name


@pytest.mark.parametrize("name", REFUSED)
def test_what_sked_owns_or_what_makes_no_sense_is_refused_with_the_reason(name: str) -> None:
    for item in (f"--{name}", f"--{name}=x", f"--{name} x"):
        assert list(read([item])) == [Mistake(0, f"--{name} can't be used: {REFUSED[name]}")]


@pytest.mark.parametrize(
    ("items", "index", "words"),
    [
        (["--cap-ad=NET_ADMIN"], 0, 'did you mean "--cap-add"'),
        (["--nett=host"], 0, 'did you mean "--net"'),
        (["--completely-else"], 0, "README.md"),
        (["--"], 0, "expected an option"),
        (["-"], 0, "expected an option"),
        ([""], 0, "expected an option"),
        (["---privileged"], 0, "expected an option"),
        (["net=host"], 0, "expected an option"),
        (["--privileged true"], 0, "--privileged=false"),
        (["--privileged=maybe"], 0, "true or false"),
        (["-dit"], 0, "-d can't be used"),
        (["-itv/:/h"], 0, "-i can't be used"),
        (["-P"], 0, "-P can't be used"),
        (["-H tcp://evil"], 0, "DOCKER_HOST"),
        (["-x"], 0, "unknown option"),
        (["--read-only", "--cap-add"], 1, "needs a value"),
        (["--net host --privileged"], 0, "too much"),
        (["--health-cmd curl -f x"], 0, "too much"),
        (["-e 'A"], 0, "No closing quotation"),
        (["--label=sked.task=x"], 0, "sked."),
        (["-l", "sked.store=x"], 0, "sked."),
        (["--env=SKED_HOST=x"], 0, "set by Sked"),
        (["--cap-add=SYS ADMIN"], 0, "capability"),
        (["--security-opt=seccomp=/etc/profile.json"], 0, "seccomp"),
        (["--security-opt=nonsense=1"], 0, "unknown security option"),
        (["--restart=sometimes"], 0, "always"),
        (["--restart=always:3"], 0, "always"),
        (["--ulimit=nofile"], 0, "whole number"),
        (["--device=sda"], 0, "absolute path"),
        (["--mount=type=bind,src=/"], 0, "target="),
        (["--mount=type=volume,volume-opt=o=bind,dst=/x"], 0, "unknown option"),
        (["--mount=type=volume,src=../info,dst=/x"], 0, "the name of a volume"),
        (["--mount=type=volume,src=a?b,dst=/x"], 0, "the name of a volume"),
        (["--mount=type=volume,src=/etc,dst=/x"], 0, "the name of a volume"),
        (["--mount=type=bind,src=a,dst=/x"], 0, "absolute path"),
        (["--volume=/a/../b:/x"], 0, '".."'),
        (["--network=a b"], 0, "network"),
        (["--memory=lots"], 0, "size"),
        (["--memory=1e400"], 0, "size"),
        (["--cpus=-1"], 0, "number of cpus"),
        (["--pids-limit=-2"], 0, "whole number"),
        (["--oom-score-adj=-1001"], 0, "-1000"),
        (["--pid=container:"], 0, "host"),
        (["--workdir=/proc/self/fd/8"], 0, "/proc"),
        (["--hostname=a\nb"], 0, "plain text"),
        (["--tmpfs=run"], 0, "absolute path"),
    ],
)
def test_mistakes(items: list[str], index: int, words: str) -> None:
    mistakes = [found for found in read(items) if isinstance(found, Mistake)]
    assert [mistake.index for mistake in mistakes] == [index]
    assert words in mistakes[0].message
    assert mistakes[0].message.isprintable()


def test_the_readme_lists_each_option_and_what_it_becomes() -> None:
    text = README.read_text()
    rows = re.findall(r"^\| (`--[^|]*) \| (yes|no) \| `([^`]*)` \| (\w+) \|$", text, re.MULTILINE)
    other = {name: alias for alias, name in ALIASES.items()}
    expected = []
    for flag in FLAGS:
        names = [f"--{flag.name}"]
        names += [f"--{other[flag.name]}"] if flag.name in other else []
        names += [f"-{flag.short}"] if flag.short else []
        spelled = ", ".join(f"`{name}`" for name in names)
        expected.append((spelled, "no" if flag.switch else "yes", flag.target, flag.gather.value))
    assert rows == expected
    refused = re.findall(r"^\| `--([a-z-]+)` \| ([^|]*) \|$", text, re.MULTILINE)
    assert refused == list(REFUSED.items())
