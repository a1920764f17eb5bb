"""Pushes that race: each is told what became of it, in words about pushes."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.e2e.daemon_host import DaemonHost, made_host, policy

pytestmark = pytest.mark.root

MAIN = "refs/heads/main"


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DaemonHost]:
    with made_host(tmp_path_factory.mktemp("h"), "web", audit_interval_s=600) as made:
        yield made


def test_a_push_whose_branch_moved_while_it_was_checked_is_told_to_rebase(host: DaemonHost) -> None:
    old = host.git("rev-parse", "HEAD")
    host.write("policies/first.yaml", policy("first", "web", ingress=[]))
    first = host.commit()
    second = host.git("commit-tree", "-p", old, "-m", "second", f"{old}^{{tree}}")
    said = _hook(host, "pre-receive", old, second)
    assert f"somebody else's push was first: main is at {first[:12]} now" in said
    assert "next: fetch and rebase, then push again: git pull --rebase && git push" in said
    assert said[-2:] == ["plumb: refused; nothing changes on any host", "exit 1"]


def test_a_push_of_which_nothing_else_is_known_goes_through(host: DaemonHost) -> None:
    old = host.git("rev-parse", "HEAD")
    new = host.git("commit-tree", "-p", old, "-m", "next", f"{old}^{{tree}}")
    assert _hook(host, "pre-receive", old, new)[-1] == "exit 0"


def test_a_push_that_a_newer_one_overtook_names_the_newer_one_at_once(host: DaemonHost) -> None:
    old = host.git("rev-parse", "HEAD")
    first = host.git("commit-tree", "-p", old, "-m", "first", f"{old}^{{tree}}")
    second = host.git("commit-tree", "-p", first, "-m", "second", f"{old}^{{tree}}")
    host.move(second)
    host.wait_for(second)
    said = _hook(host, "post-receive", old, first)
    assert any(
        "overtaken" in line and f"a newer commit came first: alpha: applied {second[:12]}" in line for line in said
    )
    assert said[-1] == "exit 0"


def _hook(host: DaemonHost, name: str, old: str, new: str) -> list[str]:
    """The lines of the daemon's answer."""
    body = {"repository": str(host.tree), "updates": [[old, new, MAIN]], "environment": {}}
    return list(host.client.lines("POST", f"/v1/hook/{name}", body))
