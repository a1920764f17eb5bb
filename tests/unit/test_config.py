"""A host's configuration file, and what is said about a wrong one."""

from __future__ import annotations

from pathlib import Path

import pytest

from reconciler import config
from reconciler.errors import UsageError
from reconciler.store.credentials import Credentials


def _load(tmp_path: Path, text: str) -> config.Config:
    path = tmp_path / "config.yaml"
    path.write_text(text)
    return config.load(path)


def test_folders_follow_from_the_nodes_name(tmp_path: Path) -> None:
    loaded = _load(tmp_path, "node: alpha\nrepository: /srv/policy.git\n")
    assert loaded.state_directory == Path("/var/lib/plumb/alpha")
    assert loaded.socket == Path("/run/plumb/alpha/plumb.sock")
    assert loaded.pin_root == Path("/sys/fs/bpf/plumb/alpha")
    assert loaded.ref == "refs/heads/main"


def test_a_whole_number_of_seconds_is_a_number_of_seconds(tmp_path: Path) -> None:
    assert _load(tmp_path, "repository: /srv/p\naudit_interval_s: 5\n").audit_interval_s == 5.0


@pytest.mark.parametrize(
    "remote",
    [
        "/srv/policy.git",
        "file:///srv/policy.git",
        "ssh://git@git.example.org:2222/policy.git",
        "https://git.example.org/policy.git",
        "git@git.example.org:policy.git",
    ],
)
def test_a_remote_is_whatever_git_can_fetch_from(tmp_path: Path, remote: str) -> None:
    assert _load(tmp_path, f"repository: /srv/p\nremote: {remote}\n").remote == remote


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("- a\n", "a mapping is needed"),
        ("node: a\n", "`repository` is missing"),
        ("repository: policy\n", "an absolute path is needed"),
        ("repository: /srv/p\nnodes: a\n", "unknown field 'nodes'; allowed are node, repository"),
        ("repository: /srv/p\naudit_interval_s: soon\n", "a float is needed"),
        ("repository: /srv/p\naudit_interval_s: 0\n", "above 0 is needed"),
        ("repository: /srv/p\nattribute_drift: 1\n", "a bool is needed"),
        ("repository: /srv/p\nlog_format: xml\n", "allowed are text, json"),
        ("repository: [\n", "cannot be read"),
        ("repository: /srv/p\nstore_ca: ca.pem\n", "an absolute path is needed"),
        ("repository: /srv/p\nstore_ca: /ca.pem\nstore_key: /key.pem\n", "name both or neither"),
        ("repository: /srv/p\nstore_cert: /cert.pem\nstore_key: /key.pem\n", "store_cert needs store_ca"),
        ("repository: /srv/p\nremote: policy.git\n", "an absolute path or an address of git is needed"),
        ("repository: /srv/p\nremote: ext::sh -c id\n", "an absolute path or an address of git is needed"),
        ("repository: /srv/p\nremote: --upload-pack=id\n", "an absolute path or an address of git is needed"),
    ],
)
def test_a_wrong_file_says_what_is_allowed(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(UsageError, match=r"config\.yaml") as caught:
        _load(tmp_path, text)
    assert message in str(caught.value)


def test_a_host_shows_etcd_the_certificate_that_its_file_names(tmp_path: Path) -> None:
    text = (
        "repository: /srv/p\nstore_ca: /etc/plumb/ca.pem\nstore_cert: /etc/plumb/c.pem\nstore_key: /etc/plumb/k.pem\n"
    )
    credentials = Credentials(Path("/etc/plumb/ca.pem"), Path("/etc/plumb/c.pem"), Path("/etc/plumb/k.pem"))
    assert _load(tmp_path, text).store_credentials == credentials
    assert _load(tmp_path, "repository: /srv/p\n").store_credentials is None


def test_a_missing_file_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        config.load(tmp_path / "none.yaml")
    assert "node: NAME" in caught.value.remedy
