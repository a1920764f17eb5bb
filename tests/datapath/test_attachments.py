"""Programs on devices, by TCX links and by clsact filters: attached, replaced, found, and repaired after tampering."""

from __future__ import annotations

import os
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from reconciler.bpf import programs, syscalls
from reconciler.bpf.syscalls import held
from reconciler.datapath.loader import Datapath
from reconciler.engine.diff import diff_rows
from reconciler.engine.rows import DictRows
from reconciler.engine.transaction import write
from reconciler.errors import KernelError
from reconciler.kernel import netns
from reconciler.kernel.attachments import AttachmentsTable
from reconciler.kernel.programs import ProgramsTable
from reconciler.model.datapath import AttachmentKey, AttachmentRow, Hook

from .conftest import OPTIONS

PASS = [programs.move(0, -1), programs.leave()]


def ip(command: str) -> None:
    subprocess.run(["ip", *command.split()], check=True)


class Host:
    """A pin root with loaded programs, and one veth pair in a namespace that the test's thread is in."""

    def __init__(self, root: Path, tcx: bool, ifname: str) -> None:
        self.root, self.ifname = root, ifname
        self.datapath = Datapath(root, OPTIONS)
        self.datapath.load()
        self.table = AttachmentsTable(root, tcx=tcx)
        self.programs = ProgramsTable(root, self.datapath.load_program)
        rows = self.datapath.program_rows()
        self.wanted = {
            AttachmentKey(ifname, Hook.INGRESS): AttachmentRow("from_workload", rows["from_workload"].digest),
            AttachmentKey(ifname, Hook.EGRESS): AttachmentRow("to_workload", rows["to_workload"].digest),
        }

    def repair(self) -> str:
        delta = diff_rows("attachments", DictRows(self.wanted), self.table.live(), complete=True)
        write([delta], {"attachments": self.table})
        assert self.table.live().rows == self.wanted
        return str(delta.counts)


@pytest.fixture
def device(namespace: str) -> Iterator[Callable[[str], str]]:
    """Makes a veth pair, in the namespace that the test's thread is in; the name of its one end."""
    made: list[str] = []

    def make(ifname: str) -> str:
        ip(f"link add {ifname} type veth peer name attpeer")
        made.append(ifname)
        return ifname

    with netns.inside(namespace):
        yield make
        for ifname in made:
            subprocess.run(["ip", "link", "del", ifname], check=False, capture_output=True)


@pytest.fixture(params=["tcx", "clsact"])
def host(request: pytest.FixtureRequest, pin_root: Path, device: Callable[[str], str]) -> Host:
    return Host(pin_root, request.param == "tcx", device(f"att.{request.param}"))


def test_what_is_attached_shows_and_is_not_attached_twice(host: Host) -> None:
    assert host.repair() == "+2 ~0 -0"
    host.table.write(host.wanted, ())
    assert host.repair() == "+0 ~0 -0"


def test_rows_can_be_asked_for_by_key(host: Host) -> None:
    host.repair()
    key = next(iter(host.wanted))
    assert host.table.live({key}).rows == {key: host.wanted[key]}


def test_a_device_is_guarded_while_programs_run_in_both_directions(host: Host) -> None:
    assert host.table.guarded([host.ifname]) == frozenset()
    host.repair()
    assert host.table.guarded([host.ifname, "att.none"]) == {host.ifname}
    host.table.write({}, list(host.wanted)[:1])
    assert host.table.guarded([host.ifname]) == frozenset()


def test_a_deleted_row_leaves_the_hook(host: Host) -> None:
    host.repair()
    host.table.write({}, list(host.wanted))
    host.table.write({}, list(host.wanted))
    assert not host.table.live().rows


def test_a_new_digest_replaces_the_program_in_place_and_the_old_one_comes_back(host: Host) -> None:
    host.repair()
    before = dict(host.wanted)
    newer = Datapath(host.root, OPTIONS | {"timeout_udp": 5})
    table = ProgramsTable(host.root, newer.load_program)
    old_programs = host.programs.live().rows
    table.write(newer.program_rows(), ())
    host.wanted = {
        key: AttachmentRow(row.program, newer.program_rows()[row.program].digest) for key, row in before.items()
    }
    assert host.repair() == "+0 ~2 -0"
    host.programs.write(old_programs, ())
    assert host.programs.live().rows == old_programs
    host.wanted = before
    assert host.repair() == "+0 ~2 -0"


def test_another_program_on_the_hook_is_neither_shown_nor_touched(host: Host) -> None:
    index = socket.if_nametoindex(host.ifname)
    with (
        held(programs.load_program(programs.SCHED_CLS, PASS, name="foreign")) as foreign,
        held(programs.attach_tcx(foreign, index, programs.TCX_INGRESS)) as link,
    ):
        host.repair()
        host.table.write({}, list(host.wanted))
        assert programs.link_info(link).ifindex == index


def test_a_program_whose_maps_are_no_longer_pinned_shows_as_broken(host: Host) -> None:
    host.repair()
    os.unlink(host.root / "maps" / "ipcache4")
    rows = host.table.live().rows
    assert {row.digest for row in rows.values()} == {""}
    host.programs.write(host.datapath.program_rows(), ())
    assert host.programs.live().rows == host.datapath.program_rows()
    assert host.repair() == "+0 ~2 -0"


def test_a_device_that_is_made_anew_gets_its_programs_again(host: Host) -> None:
    host.repair()
    ip(f"link del {host.ifname}")
    ip(f"link add {host.ifname} type veth peer name attpeer")
    host.repair()


def test_what_a_device_left_behind_is_cleaned(host: Host) -> None:
    host.repair()
    ip(f"link del {host.ifname}")
    host.wanted = {}
    host.repair()
    assert not list((host.root / "links").iterdir())


def test_a_device_that_is_not_there_is_an_error(host: Host) -> None:
    row = next(iter(host.wanted.values()))
    with pytest.raises(KernelError, match="no device nowhere"):
        host.table.write({AttachmentKey("nowhere", Hook.INGRESS): row}, ())


def test_a_program_that_is_not_loaded_is_an_error(host: Host) -> None:
    key = next(iter(host.wanted))
    with pytest.raises(KernelError, match="from_workload 000000000000 is not loaded"):
        host.table.write({key: AttachmentRow("from_workload", "000000000000")}, ())


@pytest.mark.parametrize("how", ["tcx-unpinned", "tcx-detached", "clsact-deleted"])
def test_a_program_that_somebody_took_off_is_attached_again(
    pin_root: Path, namespace: str, how: str, device: Callable[[str], str]
) -> None:
    host = Host(pin_root, how.startswith("tcx"), device("att0"))
    host.repair()
    pin = host.root / "links" / "att0-ingress"
    if how == "tcx-unpinned":
        pin.unlink()
    elif how == "tcx-detached":
        with held(syscalls.get(str(pin))) as link:
            programs.detach(link)
    else:
        subprocess.run(["tc", "filter", "del", "dev", "att0", "ingress"], check=True)
    assert host.table.live().rows != host.wanted
    host.repair()


def test_a_link_that_lost_its_pin_is_pinned_again_and_never_leaves_its_hook(
    pin_root: Path, namespace: str, device: Callable[[str], str]
) -> None:
    host = Host(pin_root, True, device("att0"))
    host.repair()
    pin = host.root / "links" / "att0-ingress"
    number = link_at(pin).id
    pin.unlink()
    assert host.repair() == "+0 ~1 -0"
    assert link_at(pin).id == number


def test_a_link_that_lost_its_pin_is_taken_off_when_it_is_not_wanted(
    pin_root: Path, namespace: str, device: Callable[[str], str]
) -> None:
    host = Host(pin_root, True, device("att0"))
    host.repair()
    pin = host.root / "links" / "att0-ingress"
    with held(syscalls.get(str(pin))) as link:
        pin.unlink()
        host.wanted = {}
        assert host.repair() == "+0 ~0 -2"
        assert programs.link_info(link).ifindex == 0


def test_a_link_whose_pin_somebody_exchanged_is_attached_again(
    pin_root: Path, namespace: str, device: Callable[[str], str]
) -> None:
    host = Host(pin_root, True, device("att0"))
    host.repair()
    pin = host.root / "links" / "att0-ingress"
    with (
        held(programs.load_program(programs.SCHED_CLS, PASS, name="foreign")) as foreign,
        held(programs.attach_tcx(foreign, socket.if_nametoindex("attpeer"), programs.TCX_INGRESS)) as link,
    ):
        syscalls.pin(link, str(pin))
        assert host.repair() == "+0 ~1 -0"
    assert link_at(pin).ifindex == socket.if_nametoindex("att0")


def link_at(pin: Path) -> programs.LinkInfo:
    with held(syscalls.get(str(pin))) as link:
        return programs.link_info(link)


def test_a_links_number_leads_to_its_row(pin_root: Path, namespace: str, device: Callable[[str], str]) -> None:
    host = Host(pin_root, True, device("att0"))
    host.repair()
    number = link_at(host.root / "links" / "att0-egress").id
    assert host.table.key_of_link(number) == AttachmentKey("att0", Hook.EGRESS)
    assert host.table.key_of_link(0) is None
