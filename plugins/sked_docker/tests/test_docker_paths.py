"""Where paths of the host lead, and that what was judged is what is given. No engine; mounting takes root."""

import os
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from rigs.needs import missing
from sked_core.plugin import Limits, Rejected
from sked_docker.cases import Case
from sked_docker.gates import judge
from sked_docker.paths import CannotHold, Place, as_written, guarded, resolved, walked, within
from sked_docker.policy import DockerPolicy

Body = dict[str, Any]


@pytest.fixture
def place(tmp_path: Path) -> Place:
    if os.geteuid() != 0:
        missing("root", "only root can mount")
    return Place(tmp_path / "state" / "held")


def body(*binds: str, mounts: tuple[dict[str, Any], ...] = ()) -> Body:
    return {"Image": "x", "Env": [], "Labels": {}, "HostConfig": {"Binds": [*binds], "Mounts": [*mounts]}}


def gates(wanted: Body, *volumes: str, **case: Any) -> list[str]:
    limits = Limits(pids=4_194_304)
    judged = judge(Case(DockerPolicy(volumes=[*volumes]), limits, resolve=resolved, **case), wanted)
    return [denial.gate for denial in judged]


def mounts_at(folder: Path) -> list[str]:
    return [line for line in Path("/proc/self/mounts").read_text().splitlines() if str(folder) in line]


def test_only_whole_names_count() -> None:
    assert within("/srv/data", "/srv")
    assert within("/srv", "/srv")
    assert within("/srv", "/")
    assert not within("/srv-other", "/srv")
    assert not within("/", "/srv")


def test_links_are_followed_to_their_end(tmp_path: Path) -> None:
    (tmp_path / "real" / "below").mkdir(parents=True)
    (tmp_path / "a").symlink_to("real")
    (tmp_path / "b").symlink_to(tmp_path / "a" / "below" / ".." / "below")
    (tmp_path / "c").symlink_to("../" * 30 + "etc")
    (tmp_path / "round").symlink_to("round")
    assert resolved(str(tmp_path / "b")).path == str(tmp_path / "real" / "below")
    assert resolved(f"/{tmp_path}//./a/").path == str(tmp_path / "real")
    assert resolved(str(tmp_path / "c")).path == "/etc"
    assert resolved(str(tmp_path / "round")).lack == "goes round in links"
    assert resolved(str(tmp_path / "none" / "x")).lack == "does not exist"
    assert resolved("/etc/passwd/x").lack == "does not exist"
    assert resolved("/").path == "/"


def test_what_others_can_replace_is_told(tmp_path: Path) -> None:
    owned, shared = tmp_path / "owned", tmp_path / "shared"
    (owned / "x").mkdir(parents=True)
    (shared / "x").mkdir(parents=True)
    shared.chmod(0o777)
    assert resolved(str(owned / "x")).settled
    assert not resolved(str(shared / "x")).settled


@pytest.mark.parametrize(
    ("bind", "volumes", "denied"),
    [
        ("{}/data:/d", ["{}/data:rw"], False),
        ("{}/data:/d:ro", ["{}/data"], False),
        ("{}/data:/d", ["{}/data"], True),
        ("{}/data/sub:/d:ro", ["{}/data"], False),
        ("{}/data-other:/d:ro", ["{}/data"], True),
        ("{}:/d:ro", ["{}/data"], True),
        ("{}/data/out:/d:ro", ["{}/data"], True),  # a link to /etc
        ("{}/data/out/passwd:/d:ro", ["{}/data"], True),
        ("{}/data/up:/d:ro", ["{}/data"], True),  # a link to the folder above
        ("{}/link:/d:ro", ["{}/data"], False),  # a link to what is allowed
        ("{}/link:/d:ro", ["{}/link"], True),  # the entry itself is a link: what it leads to has to be named
        ("{}/data/sub:/d:ro,z", ["{}/data"], True),  # relabelling writes
        ("{}/data/sub:/d:z", ["{}/data:rw"], False),
        ("{}/data/fifo:/d:ro", ["{}/data"], True),  # neither file nor folder
        ("{}/data/fifo:/d:ro", ["{}/data/fifo"], False),
    ],
)
def test_a_path_is_judged_by_where_it_leads(tmp_path: Path, bind: str, volumes: list[str], denied: bool) -> None:
    (tmp_path / "data" / "sub").mkdir(parents=True)
    (tmp_path / "data-other").mkdir()
    (tmp_path / "data" / "out").symlink_to("/etc")
    (tmp_path / "data" / "up").symlink_to("..")
    (tmp_path / "link").symlink_to("data")
    os.mkfifo(tmp_path / "data" / "fifo")
    found = gates(body(bind.format(tmp_path)), *(entry.format(tmp_path) for entry in volumes))
    assert found == (["docker.volumes"] if denied else [])


def test_guarded_paths_are_opened_by_their_own_names_only(tmp_path: Path) -> None:
    state = tmp_path / "agent" / "executors" / "docker"
    state.mkdir(parents=True)
    case = {"guarded": guarded(state, [])}
    for path in ("/etc", "/etc/passwd", "/proc/self", "/dev/null", str(tmp_path / "agent"), str(tmp_path)):
        wanted = body(f"{path}:/d:ro")
        assert gates(wanted, "/", **case) == ["docker.volumes"]
        assert gates(wanted, resolved(path).path, **case) == []
    assert gates(body("/:/d:ro"), "/", **case) == []  # that is its own name
    assert gates(body("/etc/ssl/certs:/d:ro"), "/etc/ssl", **case) == []


def test_the_engines_socket_is_guarded_wherever_it_is(tmp_path: Path) -> None:
    socket = tmp_path / "docker.sock"
    socket.touch()
    case = {"guarded": guarded(tmp_path / "state", [str(socket)])}
    assert gates(body(f"{socket}:/s:ro"), str(tmp_path), **case) == ["docker.volumes"]
    assert gates(body(f"{tmp_path}:/s:ro"), "/", **case) == ["docker.volumes"]


def test_what_is_given_is_what_was_judged_though_its_name_leads_elsewhere_since(place: Place, tmp_path: Path) -> None:
    allowed, secret = tmp_path / "allowed", tmp_path / "secret"
    for folder, text in ((allowed / "x", "fine"), (secret, "secret")):
        folder.mkdir(parents=True)
        (folder / "f").write_text(text)
    (allowed / "file").write_text("fine")
    mount = {"Type": "bind", "Source": f"{allowed}/file", "Target": "/f", "ReadOnly": True}
    wanted = body(f"{allowed}/x:/d:ro", mounts=(mount,))
    with place.hold() as hold:
        case = Case(DockerPolicy(volumes=[str(allowed)]), Limits(pids=4_194_304), resolve=hold.resolve)
        assert judge(case, wanted) == []
        (allowed / "x").rename(allowed / "old")
        (allowed / "x").symlink_to(secret)
        (allowed / "file").rename(allowed / "old-file")
        (allowed / "file").symlink_to("/etc/passwd")
        given = hold.given(wanted, mount=True, volumes=[])
        sources = {one["Target"]: Path(one["Source"]) for one in given["HostConfig"]["Mounts"]}
        assert (sources["/d"] / "f").read_text() == "fine"
        assert sources["/f"].read_text() == "fine"
        assert given["HostConfig"]["Binds"] == []
        assert given["Labels"] == {"sked.path.0": f"{allowed}/x:/d", "sked.path.1": f"{allowed}/file:/f"}
    assert mounts_at(tmp_path) == []
    assert not (tmp_path / "state" / "held").exists()


def test_what_was_removed_is_not_given(place: Place, tmp_path: Path) -> None:
    (tmp_path / "f").touch()
    with place.hold() as hold:
        hold.resolve(str(tmp_path / "f"))
        (tmp_path / "f").unlink()
        with pytest.raises(Rejected, match="removed while"):
            hold.given(body(f"{tmp_path}/f:/f"), mount=True, volumes=[])
    assert mounts_at(tmp_path) == []


def test_a_race_between_folder_and_link_never_gives_what_was_not_allowed(place: Place, tmp_path: Path) -> None:
    allowed, secret = tmp_path / "allowed", tmp_path / "secret"
    (allowed / "a").mkdir(parents=True)
    secret.mkdir()
    (secret / "canary").touch()
    (allowed / "link").symlink_to(secret)
    # Swaps the folder and the link for as long as it lives, as fast as it can.
    program = f"""
import ctypes
libc = ctypes.CDLL(None)
a, b = {str(allowed / "a").encode()!r}, {str(allowed / "link").encode()!r}
print("begun", flush=True)
while True:
    libc.renameat2(-100, a, -100, b, 2)
"""
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE) as swapper:
        try:
            assert swapper.stdout is not None
            swapper.stdout.readline()
            outcomes = {_given(place, allowed) for _ in range(300)}
        finally:
            swapper.kill()
    assert "secret" not in outcomes
    assert "allowed" in outcomes


def _given(place: Place, allowed: Path) -> str:
    wanted = body(f"{allowed}/a:/d:ro")
    with place.hold() as hold:
        case = Case(DockerPolicy(volumes=[str(allowed)]), Limits(pids=4_194_304), resolve=hold.resolve)
        if judge(case, wanted):
            return "denied"
        try:
            (mount,) = hold.given(wanted, mount=True, volumes=[])["HostConfig"]["Mounts"]
        except Rejected:
            return "moving"
        return "secret" if (Path(mount["Source"]) / "canary").exists() else "allowed"


def test_what_is_mounted_below_a_held_folder_comes_along_and_stays_on_the_host(place: Place, tmp_path: Path) -> None:
    # In a mount namespace of its own whose mounts are shared, as under systemd: there, taking away a copy could take
    # away the original.
    program = f"""
import os, pathlib, subprocess, sys
from sked_docker.paths import Place
folder = pathlib.Path({str(tmp_path)!r}) / "top"
(folder / "below").mkdir(parents=True)
subprocess.run(["mount", "-t", "tmpfs", "sked-test", folder / "below"], check=True)
(folder / "below" / "f").touch()
place = Place(pathlib.Path({str(tmp_path)!r}) / "held")
body = {{"Labels": {{}}, "HostConfig": {{"Binds": [f"{{folder}}:/d:ro"]}}}}
with place.hold() as hold:
    hold.resolve(str(folder))
    given = hold.given(body, mount=True, volumes=[])["HostConfig"]["Mounts"][0]["Source"]
    assert pathlib.Path(given, "below", "f").exists()
assert (folder / "below" / "f").exists(), "the original went away"
assert "held" not in pathlib.Path("/proc/self/mounts").read_text()
"""
    command = ["unshare", "--mount", "--propagation", "private", "sh", "-c", 'mount --make-rshared / && exec "$@"']
    done = subprocess.run([*command, "sh", sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    if "unshare" in done.stderr:
        missing("namespaces", f"no mount namespaces: {done.stderr.strip()}")
    assert (done.returncode, done.stderr) == (0, "")


def test_what_a_killed_agent_left_mounted_is_taken_away_by_the_next(place: Place, tmp_path: Path) -> None:
    program = f"""
import os, pathlib
from sked_docker.paths import Place
hold = Place(pathlib.Path({str(tmp_path)!r}) / "state" / "held").hold().__enter__()
hold.resolve("/usr/share")
hold.given({{"Labels": {{}}, "HostConfig": {{"Binds": ["/usr/share:/d:ro"]}}}}, mount=True, volumes=[])
os._exit(9)
"""
    assert subprocess.run([sys.executable, "-c", program], check=False, timeout=60).returncode == 9
    assert len(mounts_at(tmp_path)) == 2
    with place.hold() as hold:
        hold.resolve("/usr/share")
        hold.given(body("/usr/share:/d:ro"), mount=True, volumes=[])
        assert len(mounts_at(tmp_path)) == 2
    assert mounts_at(tmp_path) == []


def _by_name(path: Path, *volumes: str) -> str:
    with ExitStack() as stack:
        hold = stack.enter_context(Place(Path("/nonexistent")).hold())
        hold.resolve(str(path))
        given = hold.given(body(f"{path}:/d:ro"), mount=False, volumes=[*volumes])
        source: str = given["HostConfig"]["Mounts"][0]["Source"]
        return source


def test_an_agent_that_cannot_mount_gives_only_what_the_policy_names_and_nobody_can_replace(tmp_path: Path) -> None:
    folder = tmp_path / "data" / "sub"
    folder.mkdir(parents=True)
    assert _by_name(folder, str(folder)) == str(folder)
    with pytest.raises(Rejected, match="can't be held"):
        _by_name(folder, str(tmp_path))
    with pytest.raises(Rejected, match="can't be held"):  # whoever has the folder above may replace it
        _by_name(folder, str(folder), f"{tmp_path}/data:rw")
    folder.parent.chmod(0o777)
    with pytest.raises(Rejected, match="can't be held"):
        _by_name(folder, str(folder))
    with pytest.raises(Rejected, match="does not exist"):
        _by_name(tmp_path / "none", str(tmp_path / "none"))


def test_who_may_not_mount_is_told_so() -> None:
    if os.geteuid() != 0:
        missing("root", "only root can become another user")
    with tempfile.TemporaryDirectory() as folder:  # not below tmp_path, which is for this user alone
        Path(folder).chmod(0o777)
        program = f"""
import os, pathlib
from sked_docker.paths import CannotHold, Place
os.setgroups([]); os.setgid(65534); os.setuid(65534)
try:
    with Place(pathlib.Path({folder!r}) / "state").hold() as hold:
        hold.resolve("/usr")
        hold.given({{"Labels": {{}}, "HostConfig": {{"Binds": ["/usr:/d:ro"]}}}}, mount=True, volumes=[])
except CannotHold as error:
    print("cannot hold", error)
"""
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
        assert done.stdout.startswith("cannot hold"), done.stderr
        assert list(Path(folder).iterdir()) == []


def test_descriptors_are_given_back(place: Place, tmp_path: Path) -> None:
    def count() -> int:
        return len(list(Path("/proc/self/fd").iterdir()))

    (tmp_path / "a").symlink_to("/usr/share/../share")
    before = count()
    for path in (str(tmp_path / "a"), "/none", "/etc/passwd/x", "/usr"):
        resolved(path)
        with place.hold() as hold:
            hold.resolve(path)
    assert count() < before + 4, "one is left by each"  # those of other tests in this process come and go
    assert walked("/none")[1] == -1
    assert as_written("//a/./b").path == "/a/b"
    assert issubclass(CannotHold, Exception)
