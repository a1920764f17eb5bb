"""The API over its real socket: what it answers, to whom, and what bad callers cannot do."""

from __future__ import annotations

import json
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from reconciler.daemon.service import COLLECT_EVERY_S
from reconciler.errors import DaemonUnreachable, PlumbError, UsageError
from reconciler.kernel.bpf_maps import PinnedMaps
from tests.e2e.daemon_host import DEADLINE_S, DaemonHost, allowing, made_host, policy, until
from tests.e2e.packet_flow import stopped

pytestmark = pytest.mark.root

PORT, OTHER = 4000, 4001
QUICK_S = 2.0


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DaemonHost]:
    with made_host(tmp_path_factory.mktemp("h"), "web", "client", audit_interval_s=600) as made:
        made.write("policies/web.yaml", policy("web", "web", ingress=[allowing("from", "client", PORT)]))
        made.wait_for(made.commit())
        yield made


@pytest.fixture
def host(shared: DaemonHost) -> Iterator[DaemonHost]:
    """It answers within `QUICK_S` after every test, and nothing has changed."""
    shared.settle()
    before = shared.rows()
    yield shared
    began = time.monotonic()
    shared.status()
    assert time.monotonic() - began < QUICK_S
    shared.settle()
    assert shared.rows() == before


@pytest.mark.parametrize(
    "path",
    [
        "/v1/status",
        "/v1/version",
        "/v1/history",
        "/v1/history?limit=1",
        "/v1/endpoints",
        "/v1/identities",
        "/v1/tables",
        "/v1/tables/policy",
        "/v1/tables/ipcache",
        "/v1/tables/routes",
        "/v1/features",
        "/v1/drift",
    ],
)
def test_every_path_answers_with_json(host: DaemonHost, path: str) -> None:
    head, body = _asked(host, f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    assert head.startswith("HTTP/1.1 200")
    assert "application/json" in head.lower()
    assert isinstance(json.loads(body), dict | list)


def test_the_status_says_what_the_host_is_at(host: DaemonHost) -> None:
    status = host.status()
    assert (status["node"], status["commit"], status["state"]) == ("alpha", host.at, "converged")
    assert (status["endpoints"], status["policies"]) == (2, 1)
    assert status["tables"] == host.client.get("/v1/tables")
    assert host.daemon
    assert status["daemon"]["pid"] == host.daemon.pid


def test_a_plan_shows_what_would_change_and_changes_nothing(host: DaemonHost) -> None:
    host.write("policies/web.yaml", policy("web", "web", ingress=[allowing("from", "client", OTHER)]))
    host.git("add", "-A")
    commit = host.git("commit-tree", "-m", "aside", "-p", "HEAD", host.git("write-tree"))
    host.git("reset", "-q", "--hard")
    plan = host.client.post("/v1/plan", {"revision": commit, "rows": True})
    assert (plan["commit"], plan["base"]) == (commit, host.at)
    assert plan["counts"] == {"policy": {"added": 1, "changed": 0, "removed": 1}}
    assert "default/client" in plan["text"]
    assert "policies/web.yaml:2" in plan["text"]


@pytest.mark.parametrize(
    ("method", "path", "body", "said", "kind"),
    [
        ("GET", "/v2/status", b"", "there is no /v2/status", "UsageError"),
        ("DELETE", "/v1/status", b"", "/v1/status does not take DELETE", "UsageError"),
        ("POST", "/v1/status", b"{}", "/v1/status does not take POST", "UsageError"),
        ("GET", "/v1/tables/nothing", b"", "no table 'nothing'", "UsageError"),
        ("GET", "/v1/history?limit=many", b"", "limit must be a whole number", "UsageError"),
        ("GET", "/v1/wait", b"", "commit is missing", "UsageError"),
        ("GET", "/v1/wait?commit=HEAD&timeout_s=soon", b"", "timeout_s must be a number of seconds", "UsageError"),
        ("POST", "/v1/plan", b"{", "the body is not JSON", "UsageError"),
        ("POST", "/v1/plan", b"[]", "the body must be a JSON object", "UsageError"),
        ("POST", "/v1/plan", b'{"revision": 7}', "revision must be text", "UsageError"),
        ("POST", "/v1/plan", b'{"revision": "nowhere"}', "commit nowhere", "RepositoryError"),
        ("POST", "/v1/plan", b'{"revision": "--help"}', "'--help' is not a revision", "RepositoryError"),
        ("POST", "/v1/plan", b'{"tables": ["nothing"]}', "no table nothing", "UsageError"),
        ("POST", "/v1/plan", b'{"tables": 7}', "tables must be", "UsageError"),
        ("POST", "/v1/plan", b'{"environment": "x"}', "environment must be", "UsageError"),
        ("POST", "/v1/apply", b'{"plan": {}}', "this is not a whole plan", "UsageError"),
        ("POST", "/v1/apply", b'{"plan": "x"}', "this is not a whole plan", "UsageError"),
        ("POST", "/v1/rollback", b'{"commit": "nowhere"}', "commit nowhere", "RepositoryError"),
        ("POST", "/v1/hook/pre-receive", b"{}", "not a push", "UsageError"),
        ("POST", "/v1/hook/post-receive", b'{"updates": 3}', "not a push", "UsageError"),
    ],
)
def test_what_cannot_be_answered_is_an_error_with_its_kind(
    host: DaemonHost, method: str, path: str, body: bytes, said: str, kind: str
) -> None:
    request = f"{method} {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body
    head, answer = _asked(host, request)
    error = json.loads(answer)
    assert head.startswith(("HTTP/1.1 400", "HTTP/1.1 409"))
    assert said in error["error"]
    assert error["kind"] == kind
    assert error["exit_code"] > 1
    assert isinstance(error["remedy"], str)


@pytest.mark.parametrize(
    "sent",
    [
        b"",
        b"\x00\xff\xfe rubbish\r\n\r\n",
        b"GET /v1/status\r\n\r\n",
        b"GET /v1/status HTTP/1.1\r\n",
        b"POST /v1/plan HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n{",
        b"POST /v1/plan HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
        b"POST /v1/plan HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"GET /" + b"a" * 200_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET http://[ HTTP/1.1\r\nHost: x\r\n\r\n",
    ],
)
def test_whoever_speaks_no_http_is_hung_up_on(host: DaemonHost, sent: bytes) -> None:
    with _connected(host) as connection:
        connection.sendall(sent)
        connection.shutdown(socket.SHUT_WR)
        assert b" 200 " not in _rest(connection)
    assert "Traceback" not in host.log()


def test_a_huge_body_is_refused_before_it_is_read(host: DaemonHost) -> None:
    before = _peak_kb(host)
    with _connected(host) as connection:
        connection.sendall(b"POST /v1/plan HTTP/1.1\r\nHost: x\r\nContent-Length: 10000000000\r\n\r\n")
        answer = _rest(connection)
    assert answer.startswith(b"HTTP/1.1 413")
    assert json.loads(answer.partition(b"\r\n\r\n")[2])["error"].startswith("not a request: the body is larger than")
    assert _peak_kb(host) < before + 10_000


def test_it_says_how_full_the_tables_of_flows_are(host: DaemonHost) -> None:
    until(lambda: host.status()["flows"], "flows were collected", COLLECT_EVERY_S + DEADLINE_S)
    assert host.status()["flows"]["conntrack4"].keys() == {"live", "entries"}


def test_slow_callers_keep_nobody_waiting(host: DaemonHost) -> None:
    slow = [socket.socket(socket.AF_UNIX) for _ in range(50)]
    for one in slow:
        one.connect(str(host.config.socket))
        one.sendall(b"POST /v1/plan HTTP/1.1\r\nHost: x\r\nContent-Le")
    began = time.monotonic()
    host.status()
    assert time.monotonic() - began < QUICK_S
    for one in slow:
        one.close()


def test_only_root_and_the_group_may_open_the_socket(host: DaemonHost) -> None:
    found = host.config.socket.stat()
    assert (stat.S_IMODE(found.st_mode), found.st_uid, found.st_gid) == (0o660, 0, 0)
    code = f"import socket; socket.socket(socket.AF_UNIX).connect({str(host.config.socket)!r})"
    command = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--inh-caps=-all", sys.executable]
    assert "PermissionError" in subprocess.run([*command, "-c", code], capture_output=True, text=True).stderr


def test_drops_are_streamed_with_both_labels_and_the_rule(host: DaemonHost) -> None:
    events = host.client.stream("/v1/events", types="drop")
    with stopped(host, "client", "web", OTHER):
        event = next(events)
    assert event["source"]["workload"] == "default/client"
    assert event["destination"]["workload"] == "default/web"
    assert any("app=client" in label for label in event["source"]["labels"])
    assert any("app=web" in label for label in event["destination"]["labels"])
    assert (event["rule"]["path"], event["rule"]["line"]) == ("policies/web.yaml", 2)
    events.close()  # type: ignore[attr-defined]


def test_a_reader_that_stops_reading_holds_up_nobody(host: DaemonHost) -> None:
    """And is told how much it missed, once it reads on."""
    with _connected(host) as stuck, _connected(host) as other:
        stuck.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        for one in (stuck, other):
            one.sendall(b"GET /v1/events?types=drop HTTP/1.1\r\nHost: x\r\n\r\n")
        with stopped(host, "client", "web", OTHER) as flood:
            assert b"default/client" in other.recv(1 << 16)
            flood.more(6000)
            began = time.monotonic()
            host.status()
            assert time.monotonic() - began < QUICK_S
            until(lambda: b'"lost"' in stuck.recv(1 << 20), "what was lost is told")


def test_nobody_listening_costs_no_events(host: DaemonHost) -> None:
    """A reader that went away is forgotten."""
    events = host.client.stream("/v1/events", types="drop")
    with stopped(host, "client", "web", OTHER):
        next(events)
    events.close()  # type: ignore[attr-defined]
    until(lambda: not _mask(host), "the programs send nothing any more")


def test_the_client_tells_errors_as_they_were(host: DaemonHost) -> None:
    with pytest.raises(UsageError, match="no table 'nothing'"):
        host.client.get("/v1/tables/nothing")
    with pytest.raises(PlumbError, match="nothing is known of feed"):
        host.client.get("/v1/wait", commit="feed", timeout_s=0.1)


def test_without_a_daemon_the_client_says_so(tmp_path_factory: pytest.TempPathFactory) -> None:
    with made_host(tmp_path_factory.mktemp("h"), started=False) as host:
        with pytest.raises(DaemonUnreachable) as told:
            host.client.get("/v1/status")
        assert (told.value.exit_code, told.value.remedy) == (13, "start it: plumb daemon")


@contextmanager
def _connected(host: DaemonHost) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(20)
        connection.connect(str(host.config.socket))
        yield connection


def _asked(host: DaemonHost, request: bytes) -> tuple[str, bytes]:
    """Head and body of the answer to bytes as they are."""
    with _connected(host) as connection:
        connection.sendall(request)
        head, _, body = _rest(connection).partition(b"\r\n\r\n")
    return head.decode(), body


def _rest(connection: socket.socket) -> bytes:
    data = bytearray()
    try:
        while part := connection.recv(1 << 16):
            data += part
    except ConnectionResetError:  # the daemon has hung up on what it did not read
        pass
    return bytes(data)


def _peak_kb(host: DaemonHost) -> int:
    assert host.daemon
    lines = Path(f"/proc/{host.daemon.pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))


def _mask(host: DaemonHost) -> int:
    """Which events the programs send."""
    return int(PinnedMaps(host.config.pin_root).open("state").read()[1][0]["events"])
