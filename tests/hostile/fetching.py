"""The corpus's part about what agents ask servers for: artifacts (G), and what is a policy's of health checks (H)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hostile.make import definition

if TYPE_CHECKING:
    from hostile.make import Corpus

SUM = "sha256:" + "0" * 64
URLS = {
    "G01-file": "file:///etc/shadow", "G01-ftp": "ftp://example.com/x", "G01-gopher": "gopher://127.0.0.1:6379/_x",
    "G01-data": "data:text/plain,x", "G01-javascript": "javascript:alert(1)", "G01-no-scheme": "example.com/x",
    "G01-no-host": "https:///x", "G01-path": "/etc/shadow", "G02-hexadecimal": "https://0x7f000001/x",
    "G02-number": "https://2130706433/x", "G02-zero": "https://0/x", "G02-octal": "https://0177.0.0.1/x",
    "G02-short": "https://127.1/x", "G02-zone": "https://[fe80::1%25eth0]/x", "G02-encoded": "https://%31%32%37.0.0.1/x",
    "G06-crlf": "https://example.com/x\r\nHost: evil", "G06-newline": "https://example.com/\nx", "G06-tab": "https://a\t.com/x",
    "G06-two-ats": "https://example.com@evil@127.0.0.1/x", "G06-backslash": "https://example.com\\@127.0.0.1/x",
    "G06-unicode-host": "https://ex\u0430mple.com/x", "G06-unicode-dot": "https://127\u30020.0.1/x", "G06-nul": "https://a/\0",
    "G06-empty-port": "https://example.com:/x", "G06-port": "https://example.com:99999/x", "G06-bracket": "https://[::1/x",
    "G06-space": "https://example.com/x y",
}  # fmt: skip
"""No URL of an artifact, for nobody."""
GATED = {
    "G02-metadata": "https://169.254.169.254/latest/meta-data/", "G02-consul": "https://127.0.0.1:8500/v1/kv/x",
    "G02-loopback-6": "https://[::1]/x", "G02-mapped": "https://[::ffff:127.0.0.1]/x", "G02-compatible": "https://[::127.0.0.1]/x",
    "G02-private": "https://10.0.0.1/x", "G02-nat64": "https://[64:ff9b::a9fe:a9fe]/x", "G02-6to4": "https://[2002:7f00:1::]/x",
    "G02-metadata-6": "https://[fd00:ec2::254]/x", "G02-multicast": "https://224.0.0.1/x", "G02-this": "https://0.0.0.0:2375/x",
    "G05-credentials": "https://user:canary@10.0.0.1/x",
}  # fmt: skip
"""URLs that a host's policy denies for their address."""
FOLDERS = (
    "/usr/local/bin",
    "/etc/cron.d",
    "~/bin",
    "~root",
    "..",
    "a/../../b",
    "a\0b",
    "a\nb",
    "C:\\x",
    "/".join("d" * 99),
)


def artifacts(corpus: Corpus) -> None:
    at = "reject:task_definitions[0].containers[0].executor.artifact"

    def case(name: str, expect: str, /, **executor: Any) -> None:
        corpus.yml(name, expect, task=definition(executor={"start": "exec sleep 1000", **executor}))

    for name, url in URLS.items():
        case(name, at, artifact=url)
        case(f"{name}-map", f"{at}.url", artifact={"url": url, "checksum": SUM})
    for name, url in GATED.items():
        case(name, "reject:policy artifacts.private_addresses", artifact={"url": url, "checksum": SUM})
    for number, checksum in enumerate(
        ("md5:" + "0" * 32, "sha1:" + "0" * 40, "0" * 64, "sha256:", "sha256:" + "g" * 64, "sha256:" + "0" * 65, 7)
    ):
        case(f"G08-checksum-{number}", f"{at}.checksum", artifact={"url": "https://a.test/x", "checksum": checksum})
    case("G08-none", "reject:policy artifacts.without_checksum", artifact={"url": "https://a.test/x"})
    case("G08-none-text", "reject:policy artifacts.without_checksum", artifact="https://a.test/x")
    case("G08-plain", "reject:policy artifacts.plain_http", artifact={"url": "http://a.test/x", "checksum": SUM})
    for number, folder in enumerate(FOLDERS):
        case(f"G10-to-{number}", f"{at}.to", artifact={"url": "https://a.test/x", "to": folder})
        case(f"G10-download-dir-{number}", "reject:download_dir", artifact="https://a.test/x", download_dir=folder)
    case("G28-unknown-field", f"{at}.sha256", artifact={"url": "https://a.test/x", "sha256": SUM})
    case("G28-extract", f"{at}.extract", artifact={"url": "https://a.test/x", "extract": "always"})


def checks(corpus: Corpus) -> None:
    def case(name: str, expect: str, *found: dict[str, Any]) -> None:
        corpus.yml(name, expect, task=definition(checks=list(found)))

    case("H01-script", "reject:policy checks.scripts", {"script": "touch canary"})
    for name, url in {
        "metadata": "http://169.254.169.254/", "consul": "http://127.0.0.1:8500/v1/kv/x", "docker": "http://127.0.0.1:2375/",
        "other": "http://10.0.0.1/", "name": "http://evil.test/", "number": "http://2130706433:8500/", "credentials": "http://127.0.0.1:80@evil.test/",
        "mapped": "http://[::ffff:169.254.169.254]/", "https": "https://evil.test/",
    }.items():  # fmt: skip
        case(f"H02-{name}", "reject:policy checks.targets", {"http": url})
    for number, address in enumerate(
        ("127.0.0.1:22", "10.0.0.1:80", "169.254.169.254:80", "evil.test:443", "[::1]:22")
    ):
        case(f"H03-target-{number}", "reject:policy checks.targets", {"tcp": address})
    case("H05-many", "reject:checks", *({"tcp": f"127.0.0.1:{port}"} for port in range(1, 102)))
    at = "reject:task_definitions[0].containers[0].checks[0]"
    case("H10-deregister", at, {"ttl": "10s", "deregister_critical_service_after": "1s"})
    case("H13-docker", at, {"docker_container_id": "x", "shell": "/bin/sh", "args": ["touch", "canary"]})
    case("H06-nanoseconds", f"{at}.interval", {"tcp": "127.0.0.1:1", "interval": 1})
    case("H06-negative", f"{at}.interval", {"tcp": "127.0.0.1:1", "interval": "-1s"})
    case("H06-timeout", f"{at}.timeout", {"tcp": "127.0.0.1:1", "timeout": "1ns"})
