"""A certificate of its own for a server under test, made by the openssl program."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest


@dataclass(frozen=True)
class Certificate:
    """``cert`` is signed by itself, so that it is also what clients have to trust."""

    cert: Path
    key: Path


def make_certificate(folder: Path, *names: str) -> Certificate:
    """One for ``names`` (IP addresses or DNS names) beside 127.0.0.1 and localhost, good for two days."""
    if shutil.which("openssl") is None:
        pytest.skip("there is no openssl program to make a certificate with")
    folder.mkdir(parents=True, exist_ok=True)
    found = Certificate(folder / "cert.pem", folder / "key.pem")
    names = ("127.0.0.1", "localhost", *names)
    alternative = ",".join(f"{'IP' if name.replace('.', '').isdigit() else 'DNS'}:{name}" for name in names)
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"),
            *("-days", "2", "-subj", "/CN=sked test", "-addext", f"subjectAltName={alternative}"),
            *("-keyout", found.key, "-out", found.cert),
        ],
        check=True,
        capture_output=True,
        timeout=60,
    )
    return found


class Authority:
    """Makes certificates in ``folder``: ``NAME.pem`` and ``NAME.key``."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()
        self._openssl("req", "-x509", "-subj", "/CN=test authority", "-out", "ca.pem", "-keyout", "ca.key")

    def issue(self, name: str, *, extensions: str, subject: str = "") -> None:
        """``subject``: another than the common name ``name``, as openssl writes it."""
        self._openssl("req", "-subj", subject or f"/CN={name}", "-out", f"{name}.csr", "-keyout", f"{name}.key")
        (self.folder / "extensions").write_text(extensions)
        sign = ("-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-days", "2", "-extfile", "extensions")
        self._run("x509", "-req", "-in", f"{name}.csr", "-out", f"{name}.pem", *sign)

    def _openssl(self, command: str, *options: str) -> None:
        self._run(command, "-newkey", "rsa:2048", "-nodes", *options)

    def _run(self, *arguments: str) -> None:
        subprocess.run(["openssl", *arguments], cwd=self.folder, check=True, capture_output=True, timeout=60)


def token_file(path: Path, *lines: str) -> Path:
    """A file of tokens that only its owner may read."""
    path.touch(mode=0o600)
    path.write_text("".join(f"{line}\n" for line in lines))
    return path
