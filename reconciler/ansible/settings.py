"""Which host a module speaks of: its configuration file, or node and repository alone."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from reconciler import config
from reconciler.config import Config


def settings(parameters: Mapping[str, Any]) -> Config:
    """Raises UsageError."""
    if parameters.get("node") and parameters.get("repository"):
        return config.make(parameters["node"], Path(parameters["repository"]))
    return config.load(config.configured_path(parameters.get("config_file")))
