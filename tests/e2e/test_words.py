"""What a host says to people who ask for what is not there, or who left something behind."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.e2e.daemon_host import DaemonHost, made_host, policy, until

pytestmark = pytest.mark.root


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DaemonHost]:
    with made_host(tmp_path_factory.mktemp("h"), "web", "client", audit_interval_s=600) as made:
        yield made


@pytest.mark.parametrize("option", ["--from", "--to"])
def test_the_monitor_does_not_wait_for_a_workload_that_nobody_has(host: DaemonHost, option: str) -> None:
    refused = host.plumb("monitor", option, "cleint")
    assert refused.returncode == 2
    assert 'error: no workload is called cleint: did you mean "client"?' in refused.stderr


@pytest.mark.parametrize("reason", ["", "  ", "two\nlines", "\x1b[2Jgone"])
def test_a_reason_that_says_nothing_or_moves_the_cursor_is_refused(host: DaemonHost, reason: str) -> None:
    refused = host.plumb("suspend", reason)
    assert refused.returncode == 2
    assert "error: a reason is needed: one line of text" in refused.stderr
    assert host.status()["suspended"] == ""


def test_an_old_reason_is_shown_without_its_control_characters(host: DaemonHost) -> None:
    host.stop()
    hold = host.config.state_directory / "hold.json"
    hold.write_text('{"suspended": "\\u001b[2Jgone", "held": ""}')
    shown = host.plumb("status").stdout
    hold.unlink()
    host.start()
    assert "\\x1b[2Jgone" in shown
    assert "\x1b[2J" not in shown


def test_a_commit_that_was_held_is_no_longer_told_of_after_a_newer_one(host: DaemonHost) -> None:
    host.write("policies/web.yaml", policy("web", "web", ingress=[]))
    bad = host.commit()
    host.wait_for(bad)
    assert host.plumb("rollback").returncode == 0
    assert f"{bad[:12]} is not applied again" in host.plumb("status").stdout
    host.wait_for(host.commit())
    assert "\nheld" not in host.plumb("status").stdout
    host.plumb("resume")


def test_a_repository_that_is_moved_away_is_told_before_the_next_audit(host: DaemonHost) -> None:
    host.settle()
    away = host.tree.with_name("away")
    host.tree.rename(away)
    try:
        until(lambda: "is not a git repository" in host.status()["last_error"], "the missing repository is told")
        until(lambda: host.status()["state"] == "degraded", "the pass ends")
    finally:
        away.rename(host.tree)
    until(lambda: host.status()["state"] == "converged", "the repository is followed again")
