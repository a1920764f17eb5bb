"""The systemd unit as the role writes it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROLE = Path(__file__).resolve().parents[3] / "playbooks" / "roles" / "plumb"


@pytest.fixture
def unit(tmp_path: Path) -> Path:
    """What it starts is replaced by something that is there, since systemd looks for it."""
    command = [str(Path(sys.executable).with_name("ansible")), "-i", "localhost,", "-c", "local", "localhost"]
    command += ["-e", f"@{ROLE}/defaults/main.yml", "-e", f"@{ROLE}/vars/main.yml", "-e", f"plumb_prefix={tmp_path}"]
    target = tmp_path / "plumb.service"
    arguments = f"src={ROLE}/templates/plumb.service.j2 dest={target}"
    subprocess.run([*command, "-m", "template", "-a", arguments], check=True, capture_output=True)
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "plumb").symlink_to("/bin/true")
    return target


def test_systemd_understands_every_line_of_the_unit(unit: Path) -> None:
    done = subprocess.run(["systemd-analyze", "verify", str(unit)], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_tracefs_is_mounted_by_systemd_as_the_unit_may_mount_nothing(unit: Path) -> None:
    lines = unit.read_text().splitlines()
    ordered = {word for line in lines if line.startswith("After=") for word in line.partition("=")[2].split()}
    wanted = {word for line in lines if line.startswith("Wants=") for word in line.partition("=")[2].split()}
    (calls,) = [line for line in lines if line.startswith("SystemCallFilter=")]
    assert "sys-kernel-tracing.mount" in ordered & wanted
    assert "@mount" not in calls


def test_the_unit_is_no_more_exposed_than_what_it_does_asks_for(unit: Path) -> None:
    done = subprocess.run(
        ["systemd-analyze", "security", "--offline=yes", "--threshold=40", "--no-pager", str(unit)],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout


def test_the_unit_says_of_every_capability_why_it_is_needed(unit: Path) -> None:
    lines = unit.read_text().splitlines()
    (bounding,) = [line for line in lines if line.startswith("CapabilityBoundingSet=")]
    explained = {line.split()[1] for line in lines if line.startswith("# ") and line[2:].split(" ")[0].isupper()}
    assert {name.removeprefix("CAP_") for name in bounding.partition("=")[2].split()} <= explained
