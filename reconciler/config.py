"""What a host's own configuration says: which node it is, which repository it follows, where its files are.

One YAML file, `/etc/plumb/config.yaml` unless told otherwise; every field but `node` and `repository` has a default.
Several hosts may share one file system (a lab): each then has its own file, and its own folders by its node's name.
"""

from __future__ import annotations

import os
import re
import socket
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import yaml

from reconciler.errors import UsageError
from reconciler.store.credentials import Credentials

DEFAULT_PATH = Path("/etc/plumb/config.yaml")
ENVIRONMENT_VARIABLE = "PLUMB_CONFIG"
STATE_ROOT = Path("/var/lib/plumb")
RUN_ROOT = Path("/run/plumb")
PIN_ROOT = Path("/sys/fs/bpf/plumb")
SOCKET_NAME = "plumb.sock"
STORE_NAME = "store.sqlite"


@dataclass(frozen=True, slots=True)
class Config:
    """`repository` is the path of a git repository on this host, bare or not; `ref` is the branch that is followed.

    `remote`: where the daemon fetches that branch from, '' if others bring its commits; at least every
    `poll_interval_s`. `repository` then is the daemon's own copy.
    `audit_interval_s`: the whole state is compared at least this often. `attribute_drift`: watch the bpf(2) system
    call to name who tampered; every system call on the host then costs some 100 ns more.

    `store_file`: where an embedded store is; several hosts on one machine (a lab) may share one.
    `store_ca`, `store_cert`, `store_key`: PEM files with which this host reaches an etcd; without `store_ca` it speaks
    no TLS.
    """

    node: str
    repository: Path
    ref: str = "refs/heads/main"
    remote: str = ""
    poll_interval_s: float = 30.0
    state_directory: Path = Path()
    run_directory: Path = Path()
    pin_root: Path = Path()
    group: str = "root"
    audit_interval_s: float = 30.0
    attribute_drift: bool = True
    log_format: str = "text"
    store_file: Path = Path()
    store_ca: Path | None = None
    store_cert: Path | None = None
    store_key: Path | None = None
    path: Path = field(default=Path(), compare=False)

    @property
    def socket(self) -> Path:
        return self.run_directory / SOCKET_NAME

    @property
    def store_credentials(self) -> Credentials | None:
        return Credentials(self.store_ca, self.store_cert, self.store_key) if self.store_ca else None


def make(node: str, repository: Path, **others: Any) -> Config:
    """A configuration with the folders that follow from the node's name."""
    folders = {
        "state_directory": STATE_ROOT / node,
        "run_directory": RUN_ROOT / node,
        "pin_root": PIN_ROOT / node,
        **others,
    }
    return Config(
        node=node, repository=repository, **{"store_file": folders["state_directory"] / STORE_NAME, **folders}
    )


def configured_path(option: str | None) -> Path:
    """The file that an option, the environment or the default names, in this order."""
    return Path(option or os.environ.get(ENVIRONMENT_VARIABLE) or DEFAULT_PATH)


def load(path: Path) -> Config:
    """Raises UsageError naming the file, the field and what is allowed."""
    try:
        content = yaml.safe_load(path.read_text())
    except FileNotFoundError:
        raise UsageError(
            f"{path}: there is no such file",
            remedy="name one with --config, or write one: node: NAME, repository: PATH",
        ) from None
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise UsageError(f"{path}: cannot be read: {error}") from error
    if not isinstance(content, dict):
        raise UsageError(f"{path}: a mapping is needed, with at least `repository`")
    return _from_mapping(path, content)


# git-fetch(1), "GIT URLS"; other transports (ext::, a relative path) are not for a daemon.
_REMOTE = re.compile(r"(/|(ssh|https?|git|file)://|([\w.-]+@)?[\w.-]+:(?!:|//))\S+")

_KINDS: dict[str, type] = {
    "node": str,
    "repository": Path,
    "ref": str,
    "remote": str,
    "poll_interval_s": float,
    "state_directory": Path,
    "run_directory": Path,
    "pin_root": Path,
    "group": str,
    "audit_interval_s": float,
    "attribute_drift": bool,
    "log_format": str,
    "store_file": Path,
    "store_ca": Path,
    "store_cert": Path,
    "store_key": Path,
}


def _from_mapping(path: Path, content: dict[str, Any]) -> Config:
    allowed = [item.name for item in fields(Config) if item.name != "path"]
    for name in content:
        if name not in allowed:
            raise UsageError(f"{path}: unknown field {name!r}; allowed are {', '.join(allowed)}")
    if "repository" not in content:
        raise UsageError(f"{path}: `repository` is missing: the path of the policy repository")
    values = {name: _converted(path, name, value) for name, value in content.items()}
    if values.get("remote") and not _REMOTE.fullmatch(values["remote"]):
        raise UsageError(
            f"{path}: remote is {values['remote']!r}; an absolute path or an address of git is needed",
            remedy="for example ssh://git@git.example.org/policy.git, https://..., git@git.example.org:policy.git",
        )
    node = values.pop("node", socket.gethostname())
    if values.get("log_format", "text") not in ("text", "json"):
        raise UsageError(f"{path}: log_format is {values['log_format']!r}; allowed are text, json")
    _check_store_files(path, values)
    return make(node, values.pop("repository"), **values, path=path)


def _check_store_files(path: Path, values: dict[str, Any]) -> None:
    if ("store_cert" in values) != ("store_key" in values):
        raise UsageError(f"{path}: store_cert and store_key belong together: name both or neither")
    if "store_cert" in values and "store_ca" not in values:
        raise UsageError(f"{path}: store_cert needs store_ca: the certificate that etcd's own is signed with")


def _converted(path: Path, name: str, value: Any) -> Any:
    kind = _KINDS[name]
    if kind is Path and isinstance(value, str):
        if not value.startswith("/"):
            raise UsageError(f"{path}: {name} is {value!r}; an absolute path is needed")
        return Path(value)
    if kind is float and isinstance(value, int | float) and not isinstance(value, bool):
        if value <= 0:
            raise UsageError(f"{path}: {name} is {value}; a number of seconds above 0 is needed")
        return float(value)
    if isinstance(value, kind):
        return value
    raise UsageError(f"{path}: {name} is {value!r}; a {kind.__name__.lower()} is needed")
