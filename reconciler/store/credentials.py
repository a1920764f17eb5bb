"""How a host shows an etcd server who it is: files of the host, never of the policy repository."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from reconciler.errors import StoreError


@dataclass(frozen=True, slots=True)
class Credentials:
    """PEM files. `ca` signs the servers' certificates; `cert` and `key` are this host's, both or neither."""

    ca: Path
    cert: Path | None = None
    key: Path | None = None

    def read(self) -> tuple[bytes, bytes | None, bytes | None]:
        """ca, cert, key. Raises StoreError naming the file that cannot be read."""
        cert = _content(self.cert) if self.cert else None
        key = _content(self.key) if self.key else None
        return _content(self.ca), cert, key


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise StoreError(
            f"{path}: cannot be read: {error.strerror}",
            remedy="name the PEM files for etcd in this host's configuration: store_ca, store_cert, store_key",
        ) from error
