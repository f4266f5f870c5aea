"""What may be fetched at all: URLs, checksums, hosts and addresses, judged anew at each redirect and for the address
that is connected to."""

from __future__ import annotations

import ipaddress
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from rigs.artifacts import PACKED, Site, checksum, redirect, serving
from rigs.tls import make_certificate
from sked_bash import addresses
from sked_bash.artifact import ArtifactFolder
from sked_bash.download import Downloader, Patience
from sked_bash.source import Source, denials, masked
from sked_bash.spec import parse, problems
from sked_core.plugin import Artifacts, ExecutorError, Rejected

SUM = checksum(PACKED).removeprefix("sha256:")
OPEN = Artifacts(plain_http=True, without_checksum=True, private_addresses=True)
PATIENCE = Patience(step=5, tries=2, pause=0.01)


@pytest.fixture
def site() -> Iterator[Site]:
    with serving(Site()) as site:
        site.pages["/a.tar.gz"] = PACKED
        yield site


@pytest.fixture
def secure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    """One over https, for the names good.test and other.test, which this process trusts."""
    certificate = make_certificate(tmp_path / "tls", "good.test", "other.test")
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate.cert))
    with serving(Site(certificate)) as site:
        site.pages["/a.tar.gz"] = PACKED
        yield site


class Names:
    """A resolver: each look-up of a name gives its next list of addresses, the last one again and again."""

    def __init__(self, **answers: list[list[str]]) -> None:
        self.answers = {name.replace("_", "."): list(given) for name, given in answers.items()}
        self.asked: list[str] = []

    def __call__(self, host: str, port: int) -> list[str]:
        self.asked.append(host)
        if host not in self.answers:
            raise OSError("Name or service not known")
        given = self.answers[host]
        return given.pop(0) if len(given) > 1 else given[0]


def get(url: str, folder: Path, policy: Artifacts = OPEN, names: Names | None = None, sum_: str = SUM) -> Path:
    """Where ``url`` was fetched and unpacked to."""
    downloader = Downloader(policy, PATIENCE, names) if names is not None else Downloader(policy, PATIENCE)
    ArtifactFolder(folder / "cache", policy, downloader).put(Source(url, sum_), folder / "work")
    return folder / "work"


@pytest.mark.parametrize(
    ("artifact", "path", "part"),
    [
        ({"url": "file:///etc/shadow"}, "artifact.url", 'only http:// and https:// artifacts are fetched, got "file:"'),
        ("javascript:alert(1)", "artifact", "only http://"),
        ("gopher://h/x", "artifact", "only http://"),
        ("data:text/plain,x", "artifact", "only http://"),
        ("//h/x", "artifact", "only http://"),
        ("h/x", "artifact", "only http://"),
        ("http://0x7f000001/x", "artifact", "neither a host name nor an address"),
        ("http://2130706433/x", "artifact", "neither a host name nor an address"),
        ("http://127.1/x", "artifact", "neither a host name nor an address"),
        ("http://0/x", "artifact", "neither a host name nor an address"),
        ("http://0177.0.0.1/x", "artifact", "neither a host name nor an address"),
        ("http://h.0x1/x", "artifact", "neither a host name nor an address"),
        ("http://-h/x", "artifact", "neither a host name nor an address"),
        ("http://%6c%6f/x", "artifact", "neither a host name nor an address"),
        ("http://a@b@c/x", "artifact", "not clear which host"),
        ("http://good.test:80@evil.test:/x", "artifact", "not clear which host"),
        ("http://good.test:0/x", "artifact", "not clear which host"),
        ("http://good.test\\@evil.test/x", "artifact", "printable ASCII"),
        ("http://h/\r\nX: y", "artifact", "printable ASCII"),
        ("http://h/a\tb", "artifact", "printable ASCII"),
        ("http://ex\u0430mple.com/x", "artifact", "printable ASCII"),
        ("http://h\u3002test/x", "artifact", "printable ASCII"),
        ("http://[::1%25eth0]/x", "artifact", "neither a host name nor an address"),
        ("http://h/" + "x" * 9000, "artifact", "longer than"),
        ({"url": "https://h/x", "checksum": "md5:" + "0" * 32}, "artifact.checksum", "'md5' is not one that is taken"),
        ({"url": "https://h/x", "checksum": "0" * 64}, "artifact.checksum", 'expected "sha256:"'),
        ({"url": "https://h/x", "checksum": "sha256:" + "0" * 63}, "artifact.checksum", 'expected "sha256:"'),
        ({"url": "https://h/x", "checksum": "sha256:" + "0" * 63 + "\n"}, "artifact.checksum", 'expected "sha256:"'),
        ({"url": "https://h/x", "checksum": 5}, "artifact.checksum", "expected text"),
        ({"url": "https://h/x", "to": "/usr/local/bin"}, "artifact.to", "own folder"),
        ({"url": "https://h/x", "to": "/etc/cron.d"}, "artifact.to", "own folder"),
        ({"url": "https://h/x", "to": "../other-task"}, "artifact.to", "own folder"),
        ({"url": "https://h/x", "to": "~/bin"}, "artifact.to", "own folder"),
        ({"url": "https://h/x", "to": "C:\\bin"}, "artifact.to", "not a path"),
        ({"url": "https://h/x", "to": "a\0b"}, "artifact.to", "not a path"),
        ({"url": "https://h/x", "to": "/".join("d" * 99)}, "artifact.to", "not a path"),
        ({"url": "https://h/x", "extract": "always"}, "artifact.extract", "auto"),
        ({"url": "https://h/x", "sha256": "0"}, "artifact.sha256", "unknown field"),
        ({"checksum": "sha256:" + "0" * 64}, "artifact.url", "required"),
        (["https://h/x"], "artifact", "expected"),
    ],
)
def test_what_can_be_no_artifact_is_a_problem_of_the_manifest(artifact: Any, path: str, part: str) -> None:
    (found,) = problems({"start": "x", "artifact": artifact})
    assert found.path == path
    assert part in found.message
    assert found.message.isprintable()


def test_a_map_says_where_it_goes_itself() -> None:
    spec = {"start": "x", "artifact": {"url": "https://h/x"}, "download_dir": "bin"}
    assert [problem.path for problem in problems(spec)] == ["download_dir"]


def test_both_ways_of_writing_it_mean_the_same() -> None:
    text = parse({"start": "x", "artifact": "https://h/x", "download_dir": "bin"})
    mapped = parse({"start": "x", "artifact": {"url": "https://h/x", "to": "bin"}})
    assert text.source == mapped.source == Source("https://h/x", to="bin")
    whole = {"url": "https://h/x", "checksum": "sha256:" + "A" * 64, "to": None, "extract": "none"}
    assert problems({"start": "x", "artifact": whole}) == []
    assert parse({"start": "x", "artifact": whole}).source == Source("https://h/x", "a" * 64, "", False)
    assert parse({"start": "x"}).source is None


@pytest.mark.parametrize(
    ("source", "policy", "gates"),
    [
        (Source("https://h/x", SUM), Artifacts(), []),
        (Source("http://h/x", SUM), Artifacts(), ["artifacts.plain_http"]),
        (Source("https://h/x"), Artifacts(), ["artifacts.without_checksum"]),
        (Source("http://10.0.0.1/x"), Artifacts(), ["plain_http", "private_addresses", "without_checksum"]),
        (Source("https://h.test/x", SUM), Artifacts(hosts=["*.h.test", "other"]), ["artifacts.hosts"]),
        (Source("https://a.h.test/x", SUM), Artifacts(hosts=["*.H.test", "other"]), []),
        (Source("https://OTHER./x", SUM), Artifacts(hosts=["*.h.test", "other"]), []),
        (Source("https://evilh.test/x", SUM), Artifacts(hosts=["*.h.test"]), ["artifacts.hosts"]),
        (Source("https://other@evil.test/x", SUM), Artifacts(hosts=["other"]), ["artifacts.hosts"]),
        (Source("https://other.evil.test/x", SUM), Artifacts(hosts=["other"]), ["artifacts.hosts"]),
    ],
)
def test_a_denial_names_the_gate_and_the_line_that_opens_it(
    source: Source, policy: Artifacts, gates: list[str]
) -> None:
    found = denials(source, policy)
    assert sorted(one.gate.split(".")[1] for one in found) == sorted(gate.split(".")[-1] for gate in gates)
    for one in found:
        assert one.line.startswith("artifacts: {")
        assert one.gate.split(".")[1] in one.line
    if gates == ["artifacts.hosts"]:
        assert all(host in found[0].line for host in (*policy.hosts, "h.test" if "h.test" in source.url else "evil"))


ODD = [
    *("169.254.169.254", "fe80::1", "fec0::1", "100.100.100.200", "168.63.129.16"),
    *("fd00:ec2::254", "fd00:ec2::23", "fd20:ce::254", "fd00:42::42"),
    *("0.0.0.0", "0.1.2.3", "192.0.0.192", "224.0.0.1", "239.255.255.250", "240.0.0.1", "255.255.255.255"),
    *(
        "198.18.0.1",
        "192.88.99.1",
        "203.0.113.1",
        "::",
        "::ffff:8.8.8.8",
        "::ffff:127.0.0.1",
        "::8.8.8.8",
        "::127.0.0.1",
    ),
    *("2002:7f00:1::", "2001::1", "2001:db8::1", "ff02::1", "64:ff9b::a9fe:a9fe", "64:ff9b:1::1", "100::1", "5f00::1"),
]
PRIVATE = ["127.0.0.1", "127.8.8.8", "10.1.2.3", "172.31.0.1", "192.168.1.1", "100.64.0.1", "::1", "fc00::1", "fdff::1"]
PRIVATE += ["64:ff9b::7f00:1"]
PUBLIC = ["8.8.8.8", "172.32.0.1", "100.128.0.1", "1.1.1.1", "2606:4700::1111", "64:ff9b::808:808"]


@pytest.mark.parametrize("private", [False, True])
def test_addresses_are_judged_by_where_packets_end(private: bool) -> None:
    for one in ODD:
        assert addresses.fault(ipaddress.ip_address(one), private=private), one
    for one in PRIVATE:
        assert bool(addresses.fault(ipaddress.ip_address(one), private=private)) is not private, one
    for one in PUBLIC:
        assert not addresses.fault(ipaddress.ip_address(one), private=private), one


def test_no_line_opens_a_link_local_address() -> None:
    (found,) = denials(Source("https://169.254.169.254/latest", SUM), Artifacts())
    assert (found.gate, found.line) == ("artifacts.private_addresses", "(no line allows that)")


@pytest.mark.parametrize("host", ["127.0.0.1", "[::1]", "localhost", "[::ffff:127.0.0.1]", "169.254.169.254"])
def test_this_host_and_metadata_are_not_asked(site: Site, tmp_path: Path, host: str) -> None:
    policy = Artifacts(plain_http=True, without_checksum=True)
    with pytest.raises(Rejected, match="private_addresses"):
        get(f"http://{host}:{site.server_port}/a.tar.gz", tmp_path, policy)
    assert site.asked == []


@pytest.mark.parametrize(
    "answer", [["127.0.0.1"], ["169.254.169.254"], ["::1"], ["8.8.8.8", "127.0.0.1"], ["fe80::1%1"]]
)
def test_a_name_that_leads_inside_is_not_asked(site: Site, tmp_path: Path, answer: list[str]) -> None:
    names = Names(inside_test=[answer])
    with pytest.raises(Rejected, match=r"artifacts.private_addresses.*inside.test"):
        get(f"http://inside.test:{site.server_port}/a.tar.gz", tmp_path, Artifacts(plain_http=True), names)
    assert site.asked == []


def test_the_address_that_was_judged_is_the_one_that_is_asked(site: Site, tmp_path: Path) -> None:  # DNS rebinding
    names = Names(rebinding_test=[["127.0.0.1"], ["127.0.0.2"]])
    get(f"http://rebinding.test:{site.server_port}/a.tar.gz", tmp_path, names=names)
    assert names.asked == ["rebinding.test"]
    assert site.asked == [("/a.tar.gz", f"rebinding.test:{site.server_port}", None)]


def test_each_redirect_is_looked_up_and_judged_anew(site: Site, tmp_path: Path) -> None:
    site.pages["/a.tar.gz"] = redirect(f"http://moved.test:{site.server_port}/b")
    site.pages["/b"] = redirect(f"http://good.test:{site.server_port}/c")
    names = Names(good_test=[["127.0.0.1"], ["169.254.169.254"]], moved_test=[["127.0.0.1"]])
    with pytest.raises(Rejected, match=r"http://good.test:\d+/c is at 169.254.169.254"):
        get(f"http://good.test:{site.server_port}/a.tar.gz", tmp_path, names=names)
    assert [path for path, _, _ in site.asked] == ["/a.tar.gz", "/b"]


@pytest.mark.parametrize(
    ("to", "gate"),
    [
        ("http://169.254.169.254/latest/meta-data/", "artifacts.private_addresses"),
        ("http://[fd00:ec2::254]/latest", "artifacts.private_addresses"),
        ("http://elsewhere.test/x", "artifacts.hosts"),
    ],
)
def test_a_redirect_opens_no_gate(site: Site, tmp_path: Path, to: str, gate: str) -> None:
    site.pages["/a.tar.gz"] = redirect(to)
    policy = Artifacts(plain_http=True, private_addresses=True, hosts=["good.test", "169.254.169.254", "fd00:ec2::254"])
    with pytest.raises(Rejected, match=gate):
        get(f"http://good.test:{site.server_port}/a.tar.gz", tmp_path, policy, Names(good_test=[["127.0.0.1"]]))


@pytest.mark.parametrize(
    "to", ["file:///etc/passwd", "ftp://h/x", "data:,x", "//0x7f.1/x", "http://h/\x01", "", "/a.tar.gz"]
)
def test_other_redirects_are_not_followed(site: Site, tmp_path: Path, to: str) -> None:
    site.pages["/a.tar.gz"] = redirect(to)
    with pytest.raises(ExecutorError, match="redirect"):
        get(f"{site.url}/a.tar.gz", tmp_path)
    assert len(site.asked) <= 6


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_redirects_are_followed_a_few_times(site: Site, tmp_path: Path, status: int) -> None:
    for number in range(1, 5):
        site.pages[f"/{number}"] = redirect(f"/{number + 1}" if number < 4 else "a.tar.gz", status)
    work = get(f"{site.url}/1", tmp_path)
    assert (work / "1").read_bytes() == PACKED  # what it is called by the server does not matter
    assert len(site.asked) == 5


def test_https_is_spoken_with_the_name_and_its_certificate(secure: Site, tmp_path: Path) -> None:
    names = Names(good_test=[["127.0.0.1"]], bad_test=[["127.0.0.1"]])
    policy = Artifacts(private_addresses=True)
    work = get(f"https://good.test:{secure.server_port}/a.tar.gz", tmp_path, policy, names)
    assert (work / "bin/run").exists()
    assert secure.names == ["good.test"]
    with pytest.raises(ExecutorError, match="certificate is not trusted"):
        get(f"https://bad.test:{secure.server_port}/a.tar.gz", tmp_path / "other", policy, names)


def test_nothing_is_followed_from_https_to_http(secure: Site, site: Site, tmp_path: Path) -> None:
    secure.pages["/a.tar.gz"] = redirect(f"{site.url}/a.tar.gz")
    with pytest.raises(ExecutorError, match="from https: to http:"):
        get(f"https://good.test:{secure.server_port}/a.tar.gz", tmp_path, names=Names(good_test=[["127.0.0.1"]]))
    assert site.asked == []


def test_http_may_lead_to_https(secure: Site, site: Site, tmp_path: Path) -> None:
    site.pages["/a.tar.gz"] = redirect(f"https://good.test:{secure.server_port}/a.tar.gz")
    work = get(f"{site.url}/a.tar.gz", tmp_path, names=Names(good_test=[["127.0.0.1"]]))
    assert (work / "bin/run").exists()


def test_an_https_body_that_only_a_hang_up_ends_needs_a_checksum(secure: Site, tmp_path: Path) -> None:
    """A server that says no length and hangs up without an end of TLS: so does whoever cuts the connection."""

    def cut(request: Any) -> None:
        request.send_response(200)
        request.end_headers()
        request.wfile.write(PACKED)
        request.wfile.flush()
        request.connection.detach()  # no close_notify
        request.close_connection = True

    secure.pages["/a.tar.gz"] = cut
    names = Names(good_test=[["127.0.0.1"]])
    with pytest.raises(ExecutorError):
        get(f"https://good.test:{secure.server_port}/a.tar.gz", tmp_path, names=names, sum_="")


def test_a_password_goes_to_its_own_server_only_and_into_no_message(site: Site, tmp_path: Path) -> None:
    site.pages["/a.tar.gz"] = redirect("/same")
    site.pages["/same"] = redirect(f"http://other.test:{site.server_port}/other?token=hidden")
    site.pages["/other?token=hidden"] = lambda request: request.send_error(403)
    names = Names(good_test=[["127.0.0.1"]], other_test=[["127.0.0.1"]])
    url = f"http://user:pass%40word@good.test:{site.server_port}/a.tar.gz?signature=hidden"
    site.pages["/a.tar.gz?signature=hidden"] = site.pages["/a.tar.gz"]
    with pytest.raises(ExecutorError) as caught:
        get(url, tmp_path, names=names)
    basic = "Basic dXNlcjpwYXNzQHdvcmQ="
    assert [(path.partition("?")[0], sent) for path, _, sent in site.asked] == [
        ("/a.tar.gz", basic),
        ("/same", basic),
        ("/other", None),
    ]
    assert "403" in str(caught.value)
    for secret in ("pass", "user", "hidden"):
        assert secret not in str(caught.value)


def test_a_password_in_the_store_is_warned_of_and_starts_all_the_same(rig: Any, site: Site) -> None:
    spec = {"start": "sleep 1000", "artifact": site.url.replace("//", "//user:canary@") + "/a.tar.gz"}
    (found,) = rig.executor.validate(spec)
    assert (found.path, found.warning) == ("artifact", True)
    assert "canary" not in str(found)
    rig.start(**spec)
    spec["artifact"] = {"url": spec["artifact"]}
    assert [one.path for one in rig.executor.validate(spec)] == ["artifact.url"]
    assert rig.executor.validate({"start": "x", "artifact": "https://user@h/x"}) == []


@pytest.mark.parametrize("policy", [Artifacts(), Artifacts(hosts=["x.test"]), Artifacts(plain_http=True)])
def test_denials_show_no_password(policy: Artifacts) -> None:
    text = "; ".join(str(one) for one in denials(Source("http://user:canary@10.0.0.1/x?canary#canary"), policy))
    assert "canary" not in text
    assert "http://10.0.0.1/x" in text
    assert masked("https://u:p@[2001:db8::1]:80/x?y") == "https://[2001:db8::1]:80/x"


def test_proxies_of_the_environment_are_not_asked(site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    assert (get(f"{site.url}/a.tar.gz", tmp_path) / "bin/run").exists()


def test_a_resolver_that_hangs_does_not_hold_up_a_start(tmp_path: Path) -> None:
    release = threading.Event()

    def hang(host: str, port: int) -> list[str]:
        release.wait(60)
        return []

    downloader = Downloader(OPEN, Patience(step=0.2, tries=2, pause=0.01), hang)
    begun = time.monotonic()
    try:
        with pytest.raises(ExecutorError, match="no address of slow"):
            ArtifactFolder(tmp_path / "c", OPEN, downloader).put(Source("http://slow.test/x", SUM), tmp_path / "work")
    finally:
        release.set()
    assert time.monotonic() - begun < 30


@pytest.mark.parametrize(
    ("spec", "gate"),
    [
        ({"artifact": "https://h.test/a"}, "artifacts.without_checksum"),
        ({"artifact": {"url": "http://h.test/a", "checksum": "sha256:" + "0" * 64}}, "artifacts.plain_http"),
        ({"artifact": {"url": "https://10.0.0.1/a", "checksum": "sha256:" + "0" * 64}}, "artifacts.private_addresses"),
    ],
)
def test_an_executor_refuses_what_its_policy_does_not_allow(
    strict: Callable[[], Any], spec: dict[str, Any], gate: str
) -> None:
    with pytest.raises(Rejected, match=rf"policy {gate}: .*; to allow it, add `artifacts: "):
        strict().start(start="sleep 1000", **spec)
