"""Kernel filters on the real kernel: what they show, and that they show nothing else."""

from __future__ import annotations

import errno
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from reconciler.errors import FeatureMissing, KernelError, UsageError
from reconciler.observe.kernel_monitor import KernelEvent, KernelMonitor, vocabulary
from reconciler.observe.kernel_types import RunningKernel

from .hands import eventually

DEADLINE_S = 10.0
CLOSED, MARKER = 9, 7  # UDP ports where nobody listens


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def monitor(cache: Path) -> Iterator[Callable[[str], KernelMonitor]]:
    started: list[KernelMonitor] = []

    def start(expression: str) -> KernelMonitor:
        started.append(KernelMonitor(expression, cache=cache))
        return started[-1]

    yield start
    for each in started:
        each.close()


def netns_inode() -> int:
    return os.stat("/proc/thread-self/ns/net").st_ino


def send(port: int, host: str = "127.0.0.1") -> int:
    """One datagram; returns its source port."""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.sendto(b"hello", (host, port))
        return int(sender.getsockname()[1])


def until(watching: KernelMonitor, last: Callable[[KernelEvent], bool]) -> list[KernelEvent]:
    """Everything up to the first event that `last` is true of."""
    seen: list[KernelEvent] = []
    deadline = time.monotonic() + DEADLINE_S
    while not any(map(last, seen)):
        assert select.select([watching], [], [], max(0.0, deadline - time.monotonic()))[0], f"only {seen}"
        seen += watching.read()
    return seen


def test_a_drop_is_shown_with_its_reason_and_place(host: str, monitor: Callable[[str], KernelMonitor]) -> None:
    inode = netns_inode()
    watching = monitor(
        f"drop where protocol == udp and dport == {CLOSED} and daddr in 127.0.0.0/8 and netns == {inode}"
    )
    port = send(CLOSED)
    (event,) = until(watching, lambda event: True)
    assert event.event == "drop"
    assert event.fields == {
        "family": 4,
        "protocol": "udp",
        "saddr": "127.0.0.1",
        "daddr": "127.0.0.1",
        "sport": port,
        "dport": CLOSED,
        "netns": inode,
        "length": event.fields["length"],
        "ifindex": 1,
        "ifname": "lo",
        "reason": "NO_SOCKET",
    }
    assert "udp" in event.location
    assert abs(event.time_ns - time.time_ns()) < 60e9


def test_what_the_filter_excludes_is_not_shown(host: str, monitor: Callable[[str], KernelMonitor]) -> None:
    watching = monitor(f"drop where netns == {netns_inode()} and dport in ({CLOSED}, {MARKER}) and saddr != 127.0.0.2")
    send(CLOSED + 1)
    send(CLOSED, "::1")
    send(MARKER)
    seen = until(watching, lambda event: event.fields["dport"] == MARKER)
    assert [(event.fields["daddr"], event.fields["dport"]) for event in seen] == [
        ("::1", CLOSED),
        ("127.0.0.1", MARKER),
    ]


def test_ipv6_behind_extension_headers_has_its_ports(host: str, monitor: Callable[[str], KernelMonitor]) -> None:
    watching = monitor(f"drop where netns == {netns_inode()} and saddr in ::/0 and dport == {CLOSED}")
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as sender:
        padding = bytes([0, 0, 1, 4, 0, 0, 0, 0])  # RFC 8200: PadN
        sender.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_DSTOPTS, padding)
        sender.sendto(b"hello", ("::1", CLOSED))
        port = sender.getsockname()[1]
    (event,) = until(watching, lambda event: True)
    assert (event.fields["protocol"], event.fields["sport"], event.fields["daddr"]) == ("udp", port, "::1")


def test_a_packet_that_a_firewall_drops_has_that_reason(host: str, monitor: Callable[[str], KernelMonitor]) -> None:
    rules = f"table inet t {{ chain c {{ type filter hook input priority 0; udp dport {CLOSED} drop; }}; }}"
    subprocess.run(["nft", rules], check=True)
    watching = monitor(f"drop where netns == {netns_inode()} and reason == netfilter_drop")
    send(MARKER)
    send(CLOSED)
    (event,) = until(watching, lambda event: True)
    assert (event.fields["dport"], event.fields["reason"]) == (CLOSED, "NETFILTER_DROP")


def test_a_device_is_known_by_its_name(veth: str, monitor: Callable[[str], KernelMonitor]) -> None:
    watching = monitor(f"drop where netns == {netns_inode()} and ifname == {veth}")
    send(CLOSED)
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as wire:
        wire.bind(("veth1", 0))
        wire.send(b"\xff" * 6 + b"\2" * 6 + b"\x88\xb5" + bytes(50))  # an EtherType that nobody speaks (IEEE 802)
    events = until(watching, lambda event: event.fields["family"] == 0)
    assert {event.fields["ifname"] for event in events} == {veth}


def test_a_connection_is_seen_to_open(host: str, monitor: Callable[[str], KernelMonitor]) -> None:
    watching = monitor(f"state where netns == {netns_inode()} and newstate == SYN_SENT")
    with socket.socket() as client:
        assert client.connect_ex(("127.0.0.1", 1)) == errno.ECONNREFUSED
    (event,) = until(watching, lambda event: True)
    assert (event.fields["oldstate"], event.fields["newstate"]) == ("CLOSE", "SYN_SENT")
    assert (event.fields["daddr"], event.fields["dport"]) == ("127.0.0.1", 1)


def test_ipv4_over_an_ipv6_socket_is_ipv4(host: str, monitor: Callable[[str], KernelMonitor]) -> None:
    watching = monitor(f"state where netns == {netns_inode()} and newstate == CLOSE and daddr == 127.0.0.1")
    with socket.socket(socket.AF_INET6) as client:
        client.connect_ex(("::ffff:127.0.0.1", 1))
    event = until(watching, lambda event: True)[0]
    assert (event.fields["family"], event.fields["saddr"]) == (4, "127.0.0.1")


def test_a_segment_that_is_sent_again_is_seen(host: str, monitor: Callable[[str], KernelMonitor]) -> None:
    rules = "table inet t { chain c { type filter hook input priority 0; tcp dport 80 drop; }; }"
    subprocess.run(["nft", rules], check=True)
    watching = monitor(f"retransmit where netns == {netns_inode()} and daddr == 127.0.0.1 and state == SYN_SENT")
    with socket.socket() as client:
        client.setblocking(False)
        client.connect_ex(("127.0.0.1", 80))
        event = until(watching, lambda event: True)[0]
    assert event.fields["dport"] == 80


def test_a_reset_connection_is_seen(host: str, monitor: Callable[[str], KernelMonitor]) -> None:
    watching = monitor(f"reset where netns == {netns_inode()}")
    with socket.socket() as client:
        client.connect_ex(("127.0.0.1", 1))
    event = until(watching, lambda event: True)[0]
    assert event.fields["dport"] == 1


def test_text_and_json_are_for_reading(host: str, monitor: Callable[[str], KernelMonitor]) -> None:
    watching = monitor(f"drop where netns == {netns_inode()} and dport == {CLOSED}")
    port = send(CLOSED, "::1")
    (event,) = until(watching, lambda event: True)
    assert f"drop udp [::1]:{port} -> [::1]:{CLOSED}  " in str(event)
    assert "reason=NO_SOCKET at " in str(event)
    assert event.to_json()["location"] == event.location


def test_closing_ends_the_child(cache: Path) -> None:
    watching = KernelMonitor("reset", cache=cache)
    pid = watching.pid
    watching.close()
    assert not Path(f"/proc/{pid}").exists()


def test_the_child_ends_when_its_parent_is_killed(cache: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from reconciler.observe.kernel_monitor import KernelMonitor\n"
        "watching = KernelMonitor('reset', cache=Path(sys.argv[1]))\n"
        "print(watching.pid, flush=True); input()"
    )
    command = [sys.executable, "-c", program, str(cache)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as parent:
        assert parent.stdout
        child = Path(f"/proc/{int(parent.stdout.readline())}")
        assert child.exists()
        parent.send_signal(signal.SIGKILL)
    eventually(lambda: not child.exists())


def test_a_child_that_dies_is_an_error(cache: Path) -> None:
    watching = KernelMonitor("reset", cache=cache)
    os.kill(watching.pid, signal.SIGKILL)
    select.select([watching], [], [], DEADLINE_S)
    with pytest.raises(KernelError, match="has ended"):
        watching.read()
    watching.close()


def test_without_bcc_the_feature_is_missing_with_its_package(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    empty = cache / "empty" / "bcc"
    empty.mkdir(parents=True)
    (empty / "__init__.py").write_text("raise ImportError")
    monkeypatch.setenv("PYTHONPATH", str(empty.parent))
    with pytest.raises(FeatureMissing, match="bcc is not installed") as caught:
        KernelMonitor("reset", cache=cache)
    assert "python3-bpfcc" in caught.value.remedy


def test_without_the_capabilities_the_error_says_that_they_are_missing(cache: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from reconciler.errors import PermissionMissing\n"
        "from reconciler.observe.kernel_monitor import KernelMonitor\n"
        "try: KernelMonitor('reset', cache=Path(sys.argv[1]))\n"
        "except PermissionMissing as error: print(error.exit_code)"
    )
    command = ["setpriv", "--bounding-set=-sys_admin,-bpf,-perfmon", sys.executable, "-c", program, str(cache)]
    assert subprocess.run(command, capture_output=True, text=True).stdout == "11\n"


def test_a_wrong_expression_is_refused_before_anything_is_built(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="did you mean `sport`"):
        KernelMonitor("drop where sprot == 1", cache=tmp_path)
    assert not list(tmp_path.iterdir())


def test_the_vocabulary_has_this_kernels_reasons() -> None:
    assert "NO_SOCKET" in vocabulary()


def test_offsets_are_those_that_the_kernel_was_built_with() -> None:
    types = RunningKernel()
    assert types.member_offset("iphdr", "saddr") == 12  # RFC 791
    assert types.member_offset("ipv6hdr", "daddr") == 24  # RFC 8200
    assert types.member_offset("sock", "__sk_common.skc_family") == types.member_offset("sock_common", "skc_family")
    assert types.member_offset("iphdr", "nothing") is None
    assert types.member_offset("nothing", "saddr") is None
    assert types.tracepoint_arguments("nothing") is None
    assert types.enumerators("nothing") == {}
