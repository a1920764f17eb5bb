"""Links at the XDP hook: attached in either way, replaced under traffic, repaired, and refused with a reason."""

from __future__ import annotations

import logging
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from reconciler.bpf import programs, syscalls
from reconciler.bpf.pins import pinned_programs
from reconciler.bpf.syscalls import held
from reconciler.datapath.loader import Datapath
from reconciler.engine.diff import diff_rows
from reconciler.engine.rows import DictRows
from reconciler.engine.transaction import write
from reconciler.errors import KernelError
from reconciler.kernel import netns
from reconciler.kernel.attachments import AttachmentsTable
from reconciler.kernel.programs import ProgramsTable
from reconciler.lab.underlay import run_ip
from reconciler.model.datapath import XDP_HOOKS, AttachmentKey, AttachmentRow, Hook

from .conftest import OPTIONS
from .harness import eventually

NAME, PEER = "xdp.0", "xdp.1"
HERE, THERE = "192.0.2.1", "192.0.2.2"
LARGEST = 65535  # MTU of a veth device
PORT = 7777
ROUND_TRIPS, REPLACED = 1000, 100
LOST = -1
DEADLINE_S = 10.0
NATIVE_FLAG, GENERIC_FLAG = 1 << 2, 1 << 1  # XDP_FLAGS_*
PASS = [programs.move(0, 2), programs.leave()]
every_way = pytest.mark.parametrize("hook", XDP_HOOKS, ids=lambda hook: hook.name.lower())


class Host:
    """A pin root with loaded programs; what should be attached there, and the way to it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.datapath = Datapath(root, OPTIONS)
        self.datapath.load()
        self.table = AttachmentsTable(root)
        self.digest = self.datapath.program_rows()["at_device"].digest  # that of `in_driver` too
        self.wanted: dict[AttachmentKey, AttachmentRow] = {}

    def want(self, *hooks: Hook, ifname: str = NAME) -> str:
        """What changed."""
        self.wanted = {AttachmentKey(ifname, hook): self.row(hook) for hook in hooks}
        return self.repair()

    def row(self, hook: Hook) -> AttachmentRow:
        return AttachmentRow("in_driver" if hook is Hook.XDP_NATIVE else "at_device", self.digest)

    def repair(self) -> str:
        delta = diff_rows("attachments", DictRows(self.wanted), self.table.live(), complete=True)
        write([delta], {"attachments": self.table})
        assert self.table.live().rows == self.wanted
        return str(delta.counts)

    def pin(self, hook: Hook) -> Path:
        return self.root / "links" / f"{NAME.replace('.', '%2e')}-{hook.name.lower()}"


def mode(ifname: str = NAME) -> str:
    """What `ip` calls the device's program, xdp (native) or xdpgeneric; '' if it runs none."""
    command = ["ip", "-details", "link", "show", ifname]
    words = subprocess.run(command, capture_output=True, text=True, check=True).stdout.replace("/", " ").split()
    return next((word for word in words if word in ("xdp", "xdpgeneric")), "")


def device(namespace: str, *words: str) -> None:
    run_ip(namespace, [f"link add {NAME} {' '.join(words)}", f"link set {NAME} up"])


@pytest.fixture
def host(pin_root: Path, namespace: str) -> Iterator[Host]:
    """The test's thread is in the namespace of the devices that it makes."""
    with netns.inside(namespace):
        yield Host(pin_root)
        subprocess.run(["ip", "link", "del", NAME], check=False, capture_output=True)


@pytest.fixture
def pair(host: Host, namespace: str) -> Host:
    device(namespace, f"type veth peer name {PEER}")
    return host


@every_way
def test_what_is_attached_shows_and_leaves_again(pair: Host, hook: Hook) -> None:
    assert pair.want(hook) == "+1 ~0 -0"
    assert mode() == ("xdp" if hook is Hook.XDP_NATIVE else "xdpgeneric")
    assert pair.repair() == "+0 ~0 -0"
    assert pair.want() == "+0 ~0 -1"
    assert (mode(), pair.pin(hook).exists()) == ("", False)


def test_a_device_goes_over_to_another_way_and_back(pair: Host) -> None:
    seen = []
    for hook in (Hook.XDP_GENERIC, Hook.XDP_NATIVE, Hook.XDP, Hook.XDP_NATIVE, Hook.XDP_GENERIC):
        pair.want(hook)
        seen.append(mode())
    assert seen == ["xdpgeneric", "xdp", "xdpgeneric", "xdp", "xdpgeneric"]


def test_a_large_mtu_is_no_reason_against_native(pair: Host, namespace: str) -> None:
    run_ip(namespace, [f"link set {name} mtu {LARGEST}" for name in (NAME, PEER)])
    pair.want(Hook.XDP_NATIVE)
    assert mode() == "xdp"


def test_where_the_driver_takes_no_program_auto_is_generic_and_says_why(
    host: Host, namespace: str, caplog: pytest.LogCaptureFixture
) -> None:
    device(namespace, "type bridge")
    with caplog.at_level(logging.WARNING, "reconciler.kernel.xdp"):
        host.want(Hook.XDP)
    assert mode() == "xdpgeneric"
    (said,) = (record.getMessage() for record in caplog.records)
    assert f"device={NAME}" in said
    assert "does not support XDP in native mode" in said


def test_native_where_the_driver_takes_no_program_is_an_error_with_the_kernels_reason(
    host: Host, namespace: str
) -> None:
    device(namespace, "type bridge")
    with pytest.raises(KernelError, match=f"{NAME} takes no native XDP program: .* does not support XDP") as refused:
        host.want(Hook.XDP_NATIVE)
    assert "spec.xdp.mode" in refused.value.remedy
    assert mode() == ""


def test_without_the_program_for_drivers_a_large_mtu_makes_native_fail_with_the_kernels_reason(
    pair: Host, namespace: str
) -> None:
    run_ip(namespace, [f"link set {name} mtu {LARGEST}" for name in (NAME, PEER)])
    said = f"{NAME} takes no native XDP program: .*Peer MTU is too large"
    with pytest.raises(KernelError, match=said) as refused:
        pair.table.write({AttachmentKey(NAME, Hook.XDP_NATIVE): AttachmentRow("at_device", pair.digest)}, ())
    smaller = f"set a smaller MTU on {NAME}, or set spec.xdp.mode of the Cluster to auto or generic"
    assert refused.value.remedy == smaller


@every_way
def test_another_program_on_the_device_stays_and_is_named_as_the_reason(pair: Host, hook: Hook) -> None:
    with (
        held(programs.load_program(programs.XDP, PASS, name="foreign")) as foreign,
        held(programs.attach_xdp(foreign, socket.if_nametoindex(NAME), GENERIC_FLAG)) as link,
    ):
        with pytest.raises(KernelError, match=f"{NAME} takes no .* XDP program"):
            pair.want(hook)
        assert programs.link_info(link).ifindex == socket.if_nametoindex(NAME)


@every_way
def test_a_link_that_somebody_detached_is_attached_again(pair: Host, hook: Hook) -> None:
    pair.want(hook)
    with held(syscalls.get(str(pair.pin(hook)))) as link:
        programs.detach(link)
    assert (mode(), pair.repair()) == ("", "+0 ~1 -0")
    assert mode()


@every_way
def test_a_link_that_lost_its_pin_is_pinned_again_and_never_leaves_its_hook(pair: Host, hook: Hook) -> None:
    pair.want(hook)
    number = _link_at(pair.pin(hook)).id
    pair.pin(hook).unlink()
    assert pair.repair() == "+0 ~1 -0"
    assert _link_at(pair.pin(hook)).id == number


def test_a_link_to_another_device_under_the_name_is_replaced(pair: Host) -> None:
    pair.want(Hook.XDP_NATIVE)
    with (
        held(programs.load_program(programs.XDP, PASS, name="foreign")) as foreign,
        held(programs.attach_xdp(foreign, socket.if_nametoindex(PEER), NATIVE_FLAG)) as link,
    ):
        syscalls.pin(link, str(pair.pin(Hook.XDP_NATIVE)))
        assert pair.repair() == "+0 ~1 -0"
    assert _link_at(pair.pin(Hook.XDP_NATIVE)).ifindex == socket.if_nametoindex(NAME)


@every_way
def test_a_device_that_is_made_anew_gets_its_program_again(pair: Host, namespace: str, hook: Hook) -> None:
    pair.want(hook)
    run_ip(namespace, [f"link del {NAME}"])
    device(namespace, f"type veth peer name {PEER}")
    assert (mode(), pair.repair()) == ("", "+0 ~1 -0")
    assert mode()


def test_a_links_number_and_its_pins_name_lead_to_its_row(pair: Host) -> None:
    pair.want(Hook.XDP_NATIVE)
    number = _link_at(pair.pin(Hook.XDP_NATIVE)).id
    assert pair.table.key_of_link(number) == AttachmentKey(NAME, Hook.XDP_NATIVE)


def test_xdp_links_and_clsact_filters_stand_side_by_side(pair: Host) -> None:
    pair.table = AttachmentsTable(pair.root, tcx=False)
    digest = pair.datapath.program_rows()["from_netdev"].digest
    early = {AttachmentKey(NAME, Hook.XDP_NATIVE): pair.row(Hook.XDP_NATIVE)}
    pair.wanted = {**early, AttachmentKey(NAME, Hook.INGRESS): AttachmentRow("from_netdev", digest)}
    assert pair.repair() == "+2 ~0 -0"
    assert pair.table.live(early.keys()).rows == early


@pytest.fixture
def peer(pair: Host, namespace: str) -> Iterator[socket.socket]:
    """A socket behind the pair's other end, connected to an address of this one."""
    path = f"{namespace}-peer"
    netns.create(path)
    run_ip(namespace, [f"link set {PEER} netns {Path(path).name}", f"address add {HERE}/30 dev {NAME}"])
    run_ip(path, [f"address add {THERE}/30 dev {PEER}", f"link set {PEER} up"])
    with netns.inside(path), socket.socket(type=socket.SOCK_DGRAM) as client:
        client.settimeout(DEADLINE_S)
        client.connect((HERE, PORT))
        yield client
    netns.remove(path)


@pytest.mark.parametrize("hook", [Hook.XDP_NATIVE, Hook.XDP_GENERIC], ids=["native", "generic"])
def test_replacing_the_program_under_traffic_loses_no_packet(
    pair: Host, namespace: str, peer: socket.socket, hook: Hook
) -> None:
    newer = Datapath(pair.root, OPTIONS | {"prefilter": False})
    with netns.inside(namespace), socket.socket(type=socket.SOCK_DGRAM) as server:
        server.bind((HERE, PORT))
        pair.want(hook)
        ProgramsTable(pair.root, newer.load_program).write(newer.program_rows(), ())
        other = replace(pair.row(hook), digest=newer.program_rows()["at_device"].digest)
        name = pair.row(hook).program
        old = next(one.path for one in pinned_programs(pair.root) if (one.name, one.digest) == (name, pair.digest))
        with (
            held(syscalls.get(str(pair.pin(hook)))) as link,
            held(syscalls.get(old)) as program,
            _talking(peer, server) as answered,
        ):
            for _ in range(REPLACED):
                pair.table.write({AttachmentKey(NAME, hook): other}, ())
                programs.replace_program(link, program)
            eventually(lambda: len(answered) > ROUND_TRIPS)
        assert answered == list(range(len(answered)))


@contextmanager
def _talking(client: socket.socket, server: socket.socket) -> Iterator[list[int]]:
    """While the block runs, one question after the other gets its answer: their numbers, until one is lost."""
    answered: list[int] = []
    done = threading.Event()

    def ask() -> None:
        try:
            while not done.is_set():
                client.send(len(answered).to_bytes(4, "big"))
                answered.append(int.from_bytes(client.recv(64), "big"))
        except TimeoutError:
            answered.append(LOST)
        client.send(b"")

    server.settimeout(DEADLINE_S)
    threads = [threading.Thread(target=ask), threading.Thread(target=_echo, args=(server,))]
    for thread in threads:
        thread.start()
    yield answered
    done.set()
    for thread in threads:
        thread.join()


def _echo(server: socket.socket) -> None:
    """Until somebody sends nothing."""
    while (said := server.recvfrom(64))[0]:
        server.sendto(*said)


def _link_at(pin: Path) -> programs.LinkInfo:
    with held(syscalls.get(str(pin))) as link:
        return programs.link_info(link)
