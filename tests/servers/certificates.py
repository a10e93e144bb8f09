"""Certificates of an authority of one's own, made by openssl."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path

from perdure.worker.server_process import HOST

DAYS = "2"


@dataclass(frozen=True, slots=True)
class Authority:
    """A private authority: its certificate, and who has one by it. All PEM files."""

    directory: Path

    @property
    def ca_file(self) -> Path:
        """What its clients must trust."""
        return self.directory / "ca.pem"

    def issue(self, name: str, *, host: str = HOST) -> tuple[Path, Path]:
        """A certificate and its key for whoever listens on `host`, or connects."""
        key, request, certificate = (self.directory / f"{name}.{kind}" for kind in ("key", "csr", "pem"))
        _openssl("req", "-newkey", "rsa:2048", "-nodes", "-keyout", key, "-out", request, "-subj", f"/CN={name}")
        extensions = self.directory / f"{name}.ext"
        kind = "IP" if host[0].isdecimal() else "DNS"
        extensions.write_text(f"subjectAltName={kind}:{host}\n")
        signed: list[str | Path] = ["-in", request, "-CA", self.ca_file, "-CAkey", self.directory / "ca.key"]
        _openssl("x509", "-req", "-CAcreateserial", *signed, "-days", DAYS, "-extfile", extensions, "-out", certificate)
        return certificate, key

    def files_of(self, name: str) -> tuple[Path, Path]:
        """The certificate and the key of `name`, which are made when they are asked for first."""
        certificate, key = self.directory / f"{name}.pem", self.directory / f"{name}.key"
        return (certificate, key) if certificate.exists() else self.issue(name)


def new_authority(directory: Path) -> Authority:
    """Make an authority that nobody trusts yet."""
    directory.mkdir(parents=True)
    made = Authority(directory)
    files: list[str | Path] = ["-keyout", directory / "ca.key", "-out", made.ca_file]
    _openssl("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", DAYS, "-subj", "/CN=Perdure tests", *files)
    return made


def _openssl(*arguments: str | Path) -> None:
    subprocess.run(["openssl", *map(str, arguments)], check=True, capture_output=True, stdin=subprocess.DEVNULL)
