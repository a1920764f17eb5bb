"""Which host a module speaks of: its configuration file, or node and repository alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from reconciler import config
from reconciler.config import Config


def settings(parameters: Mapping[str, Any]) -> Config:
    """`node` and `repository` win over the file, and need none if both are there. Raises UsageError."""
    node, repository = parameters.get("node"), parameters.get("repository")
    if node and repository and not parameters.get("config_file"):
        return config.make(node, Path(repository))
    found = config.load(config.configured_path(parameters.get("config_file")))
    if node and node != found.node:
        found = replace(found, node=node)
    return replace(found, repository=Path(repository)) if repository else found
