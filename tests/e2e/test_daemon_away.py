"""The daemon away, coming and going: what is enforced stays enforced, packet by packet."""

from __future__ import annotations

import signal
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from reconciler.source import hooks
from tests.e2e.daemon_host import DaemonHost, allowing, cluster, made_host, policy
from tests.e2e.packet_flow import lossless, stopped

pytestmark = pytest.mark.root

ALLOWED, DENIED = 4000, 4001


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DaemonHost]:
    with made_host(tmp_path_factory.mktemp("h"), "web", "client") as made:
        made.write("policies/web.yaml", policy("web", "web", ingress=[allowing("from", "client", ALLOWED)]))
        made.wait_for(made.commit())
        yield made


@pytest.fixture
def running(host: DaemonHost) -> DaemonHost:
    if host.daemon is None:
        host.start()
    host.settle()
    return host


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_an_end_and_a_new_start_lose_no_packet_and_let_none_pass(running: DaemonHost, number: signal.Signals) -> None:
    with lossless(running, "client", "web", ALLOWED) as flow, stopped(running, "client", "web", DENIED) as flood:
        running.stop(number)
        flow.more()
        flood.more()
        running.start()
        running.settle()


def test_without_a_daemon_new_flows_are_judged_as_before(running: DaemonHost) -> None:
    addresses = running.addresses("web")
    running.stop(signal.SIGKILL)
    with (
        lossless(running, "client", "web", ALLOWED, addresses=addresses),
        stopped(running, "client", "web", DENIED, addresses=addresses),
    ):
        pass


def test_a_start_writes_nothing_to_a_host_that_is_as_it_should_be(running: DaemonHost) -> None:
    before = running.rows(), running.client.get("/v1/history")
    running.stop()
    running.start()
    running.settle()
    assert running.status()["drift_repairs"] == 0
    assert (running.rows(), running.client.get("/v1/history")) == before


def test_other_programs_take_over_without_a_packet_lost_or_let_through(running: DaemonHost) -> None:
    before = running.client.get("/v1/tables/programs")
    with lossless(running, "client", "web", ALLOWED), stopped(running, "client", "web", DENIED):
        running.write("cluster.yaml", cluster(conntrack={"timeouts": {"udp": 61}}))
        running.wait_for(running.commit())
    assert running.client.get("/v1/tables/programs") != before


def test_a_daemon_that_ends_takes_its_socket_along(running: DaemonHost) -> None:
    assert running.stop() == 0
    assert not running.config.socket.exists()


@contextmanager
def resetting(path: Path) -> Iterator[None]:
    """A socket whose owner takes connections, and is gone as soon as somebody asks."""

    def serve() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with connection:
                connection.recv(1)  # the rest is unread when this closes: that resets the other end

    path.unlink(missing_ok=True)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(str(path))
        listener.listen()
        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()
            path.unlink()


def test_what_a_dying_daemon_does_not_answer_the_host_itself_does(running: DaemonHost) -> None:
    running.stop(signal.SIGKILL)
    with resetting(running.config.socket):
        listed, gone_back = running.plumb("endpoint", "list"), running.plumb("rollback")
    assert listed.returncode == 0, listed.stderr
    assert "default/web" in listed.stdout
    assert gone_back.returncode == 13  # the daemon may have done it
    assert "no daemon answers" in gone_back.stderr


@pytest.fixture
def paused(running: DaemonHost) -> Iterator[DaemonHost]:
    """Its daemon is stopped by a signal, and goes on afterwards."""
    assert running.daemon
    running.daemon.send_signal(signal.SIGSTOP)
    yield running
    running.daemon.send_signal(signal.SIGCONT)


def test_a_push_to_a_stopped_daemon_is_checked_accepted_and_applied_when_it_goes_on(
    paused: DaemonHost, tmp_path: Path
) -> None:
    hooks.install(paused.tree / ".git")
    paused.git("config", "plumb.socket", str(paused.config.socket))
    paused.git("config", "receive.denyCurrentBranch", "ignore")
    paused.git("clone", "-q", str(paused.tree), str(tmp_path / "clone"))
    paused.git("-C", str(tmp_path / "clone"), "commit", "-q", "--allow-empty", "-m", "while it is stopped")
    pushed = subprocess.run(["git", "-C", str(tmp_path / "clone"), "push"], capture_output=True, text=True, check=False)
    assert pushed.returncode == 0, pushed.stderr
    assert "the commit was checked here and will be applied when it is back" in pushed.stderr
    assert paused.daemon
    paused.daemon.send_signal(signal.SIGCONT)
    paused.wait_for(paused.git("rev-parse", "HEAD"))


def test_a_command_says_that_the_daemon_is_stopped_and_how_it_goes_on(paused: DaemonHost) -> None:
    asked = paused.plumb("status")
    assert paused.daemon
    assert asked.returncode == 13
    assert f"error: the daemon of this host (pid {paused.daemon.pid}) is stopped and does not answer" in asked.stderr
    assert asked.stderr.endswith(f"next: let it go on: kill -CONT {paused.daemon.pid}\n")
