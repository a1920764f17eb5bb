"""Which host a module speaks of."""

from __future__ import annotations

from pathlib import Path

import pytest

from reconciler.ansible.settings import settings
from reconciler.errors import UsageError


def test_a_file_says_everything(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text("node: alpha\nrepository: /srv/policy.git\nrun_directory: /run/elsewhere\n")
    found = settings({"config_file": str(path)})
    assert (found.node, found.run_directory) == ("alpha", Path("/run/elsewhere"))


def test_node_and_repository_need_no_file() -> None:
    found = settings({"node": "alpha", "repository": "/srv/policy.git", "config_file": None})
    assert (found.repository, found.run_directory) == (Path("/srv/policy.git"), Path("/run/plumb/alpha"))


def test_a_file_that_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"nothing\.yaml"):
        settings({"config_file": str(tmp_path / "nothing.yaml")})
