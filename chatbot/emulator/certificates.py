"""Certificates for loopback and for `--public-host`.

A certificate authority is made at first start and kept in the user's data directory, so that whoever trusts
it once can talk to every later emulator; each server gets a fresh certificate from it. Key files are readable
by their owner only.
"""

from __future__ import annotations

import os
import ssl
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import platformdirs
import trustme
from filelock import FileLock


@dataclass(frozen=True, slots=True)
class Authority:
    """The authority and the file strangers trust it by (`SSL_CERT_FILE`.

    `REQUESTS_CA_BUNDLE`, `NODE_EXTRA_CA_CERTS`).
    """

    ca: trustme.CA
    ca_file: Path

    def server_context(self, names: Sequence[str]) -> ssl.SSLContext:
        """A server's TLS context for these host names and addresses."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        self.ca.issue_cert(*names).configure_cert(context)
        return context


def default_directory() -> Path:
    """Where the authority is kept when nobody says otherwise."""
    return Path(platformdirs.user_data_dir("chatbot", appauthor=False)) / "emulator"


def authority(directory: Path | None = None) -> Authority:
    """The authority kept in `directory`, made if there is none."""
    directory = directory or default_directory()
    directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    certificate, key = directory / "ca.pem", directory / "ca.key"
    with FileLock(directory / "ca.lock", timeout=30, mode=0o600):
        if certificate.exists() and key.exists():
            ca = trustme.CA.from_pem(certificate.read_bytes(), key.read_bytes())
        else:
            ca = trustme.CA(organization_name="chatbot emulator")
            _write(key, ca.private_key_pem.bytes(), 0o600)
            _write(certificate, ca.cert_pem.bytes(), 0o644)
    return Authority(ca, certificate)


def _write(path: Path, content: bytes, mode: int) -> None:
    """Put a file in place whole, with its mode from the first byte on."""
    handle, name = tempfile.mkstemp(dir=path.parent)
    with os.fdopen(handle, "wb") as file:
        file.write(content)
    Path(name).chmod(mode)
    Path(name).replace(path)
