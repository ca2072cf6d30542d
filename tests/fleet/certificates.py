"""Certificates for a centre's server, made by openssl."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

from tests.fleet.programs import program

if TYPE_CHECKING:
    from pathlib import Path


def openssl(*words: str) -> None:
    subprocess.run([program("openssl"), *words], check=True, capture_output=True)


def authority(directory: Path, name: str) -> Path:
    """A certificate authority; its certificate's path."""
    openssl(
        "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", f"/CN={name}",
        "-keyout", str(directory / f"{name}.key"), "-out", str(directory / f"{name}.pem"),
    )  # fmt: skip
    return directory / f"{name}.pem"


def server_certificate(by: Path, data: Path, name: str) -> None:
    """A key and a certificate for `name` by an authority, where PostgreSQL looks for them."""
    request = by.with_suffix(".csr")
    openssl(
        "req", "-newkey", "rsa:2048", "-nodes", "-subj", f"/CN={name}",
        "-addext", f"subjectAltName=DNS:{name}",
        "-keyout", str(data / "server.key"), "-out", str(request),
    )  # fmt: skip
    openssl(
        "x509", "-req", "-in", str(request), "-CA", str(by), "-days", "2",
        "-CAkey", str(by.with_suffix(".key")), "-CAcreateserial", "-copy_extensions", "copy",
        "-out", str(data / "server.crt"),
    )  # fmt: skip
    (data / "server.key").chmod(0o600)
