"""`kill -9` at every write of a converge: the next start finds the host at the old commit or at the new one."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from tests.e2e.daemon_host import CHECKOUT, DaemonHost, allowing, made_host, policy, until
from tests.e2e.packet_flow import stopped

pytestmark = pytest.mark.root

PORT, OTHER = 4000, 4001
FIXED = ["10.46.0.60", "fd46::60"]
KILLS = 4
STEP = int(os.environ.get("PLUMB_TEST_CRASH_STEP", "7"))  # 1: every single write; several runs of 7 cover them too


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DaemonHost]:
    with made_host(tmp_path_factory.mktemp("h"), "web", "client", "mover", "goer", "comer", started=False) as made:
        yield made


def test_killed_at_any_write_the_host_is_at_one_commit_or_the_other(host: DaemonHost) -> None:
    old, new = _old(host), _new(host)
    rounds = _rounds(host, old, new, 1 + os.getpid() % STEP, STEP)
    assert [one for one in rounds if one["differences"]] == []
    assert [one for one in rounds if one["unfinished"]] == []
    assert rounds[-1]["is_new"]
    assert any(one["interrupted"] for one in rounds)


def test_a_daemon_that_is_killed_between_and_within_commits_is_at_one_of_them_after_each_start(
    host: DaemonHost,
) -> None:
    old, new = _old(host), _new(host)
    host.git("update-ref", "refs/heads/main", old)
    applied = host.plumb("apply")
    assert applied.returncode == 0, applied.stderr
    with stopped(host, "client", "web", PORT, FIXED):
        for kill in range(KILLS):
            host.start()
            for turn in range(3 + kill):
                host.git("update-ref", "refs/heads/main", (old, new)[turn % 2])
            until(lambda: host.at in (old, new), "a commit is applied")
            host.stop(signal.SIGKILL)
        host.start()
        host.settle()
    assert host.at == host.git("rev-parse", "refs/heads/main")
    assert not host.status()["unfinished"]


def _rounds(host: DaemonHost, old: str, new: str, first: int, step: int) -> list[dict[str, Any]]:
    """And meanwhile not one packet arrives that both commits forbid."""
    arguments = [str(host.directory / "config.yaml"), old, new, str(first), str(step)]
    command = ["nsenter", f"--net={host.path}", sys.executable, "-m", "tests.e2e.dying_converge", *arguments]
    applied = host.plumb("apply", old)
    assert applied.returncode == 0, applied.stderr
    with stopped(host, "client", "web", PORT, FIXED):
        done = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def _old(host: DaemonHost) -> str:
    host.write("workloads/web.yaml", host.workload("web", addresses=FIXED))
    host.write("workloads/mover.yaml", host.workload("mover", addresses=["10.46.0.70", "fd46::70"]))
    (host.tree / "workloads/comer.yaml").unlink()
    host.write("workloads/goer.yaml", host.workload("goer"))
    host.write("policies/client.yaml", policy("client", "client", egress=[allowing("to", "web", OTHER)]))
    host.write("policies/web.yaml", policy("web", "web", ingress=[allowing("from", "client", PORT)]))
    return host.commit()


def _new(host: DaemonHost) -> str:
    """Another policy, other labels, another address, one workload less and one more."""
    host.write("workloads/mover.yaml", host.workload("mover", addresses=["10.46.0.71"], labels={"app": "moved"}))
    host.write("workloads/comer.yaml", host.workload("comer"))
    (host.tree / "workloads/goer.yaml").unlink()
    host.write("policies/client.yaml", policy("client", "client", egress=[allowing("to", "web", PORT)]))
    host.write("policies/web.yaml", policy("web", "web", ingress=[allowing("from", "client", OTHER)]))
    return host.commit()
