"""Programs on cgroups: attached, replaced, found, and repaired after tampering."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from reconciler.bpf import programs, syscalls
from reconciler.bpf.syscalls import held
from reconciler.datapath.loader import Datapath
from reconciler.engine.diff import diff_rows
from reconciler.engine.rows import DictRows
from reconciler.engine.transaction import write
from reconciler.errors import KernelError
from reconciler.kernel.cgroups import CgroupsTable, cgroup_mount, is_cgroup
from reconciler.model.datapath import AttachmentRow, CgroupKey, SocketHook

from .conftest import OPTIONS

NAME = f"pt-{os.getpid()}-cg.slice"


class Socketed:
    """A pin root with loaded programs, and a cgroup."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.datapath = Datapath(root, OPTIONS)
        self.datapath.load()
        self.table = CgroupsTable(root)
        rows = self.datapath.program_rows()
        self.wanted = {
            CgroupKey(NAME, hook): AttachmentRow(f"socket_{hook}", rows[f"socket_{hook}"].digest) for hook in SocketHook
        }

    def pin(self, hook: SocketHook) -> Path:
        return self.root / "links" / f"{NAME.replace('.', '%2e')}-{hook}"

    def repair(self) -> str:
        delta = diff_rows("cgroups", DictRows(self.wanted), self.table.live(), complete=True)
        write([delta], {"cgroups": self.table})
        assert self.table.live().rows == self.wanted
        return str(delta.counts)


@pytest.fixture
def host(pin_root: Path) -> Iterator[Socketed]:
    folder = cgroup_mount() / NAME
    folder.mkdir()
    made = Socketed(pin_root)
    yield made
    made.table.write({}, list(made.wanted))
    if folder.exists():
        folder.rmdir()


def test_what_is_attached_shows_and_is_not_attached_twice(host: Socketed) -> None:
    assert host.repair() == "+8 ~0 -0"
    assert host.repair() == "+0 ~0 -0"


def test_a_deleted_row_leaves_the_hook_even_if_somebody_holds_the_link(host: Socketed) -> None:
    host.repair()
    with held(syscalls.get(str(host.pin(SocketHook.CONNECT4)))) as link:
        wanted, host.wanted = host.wanted, {}
        host.repair()
        assert programs.cgroup_link_info(link).cgroup == 0
    host.wanted = wanted


def test_a_new_digest_replaces_the_program_in_the_same_link(host: Socketed) -> None:
    host.repair()
    number = _link(host.pin(SocketHook.CONNECT4)).id
    with held(programs.load_program(programs.CGROUP_SOCK_ADDR, ALLOW, name="foreign", attach_type=10)) as foreign:
        with held(syscalls.get(str(host.pin(SocketHook.CONNECT4)))) as link:
            programs.replace_program(link, foreign)
        assert host.repair() == "+0 ~1 -0"
    assert _link(host.pin(SocketHook.CONNECT4)).id == number


def test_a_link_that_lost_its_pin_is_made_again(host: Socketed) -> None:
    host.repair()
    host.pin(SocketHook.SENDMSG6).unlink()
    assert host.repair() == "+1 ~0 -0"


def test_a_cgroup_that_is_made_anew_gets_its_programs_again(host: Socketed) -> None:
    host.repair()
    folder = cgroup_mount() / NAME
    folder.rmdir()
    folder.mkdir()
    assert host.repair() == "+0 ~8 -0"


def test_what_a_cgroup_left_behind_is_cleaned(host: Socketed) -> None:
    host.repair()
    (cgroup_mount() / NAME).rmdir()
    wanted, host.wanted = host.wanted, {}
    host.repair()
    assert not list((host.root / "links").iterdir())
    host.wanted = wanted


def test_a_program_of_somebody_else_on_the_hook_stays(host: Socketed) -> None:
    with (
        held(programs.load_program(programs.CGROUP_SOCK_ADDR, ALLOW, name="foreign", attach_type=10)) as foreign,
        held(os.open(cgroup_mount() / NAME, os.O_RDONLY)) as folder,
        held(programs.attach_cgroup(foreign, folder, 10)) as link,
    ):
        host.repair()
        host.table.write({}, list(host.wanted))
        assert programs.cgroup_link_info(link).cgroup


def test_a_cgroup_that_is_not_there_is_an_error(host: Socketed) -> None:
    row = next(iter(host.wanted.values()))
    assert not is_cgroup(f"{NAME}/nowhere")
    with pytest.raises(KernelError, match=r"no cgroup .*nowhere"):
        host.table.write({CgroupKey(f"{NAME}/nowhere", SocketHook.CONNECT4): row}, ())


def test_a_links_number_leads_to_its_row(host: Socketed) -> None:
    host.repair()
    number = _link(host.pin(SocketHook.RECVMSG4)).id
    assert host.table.key_of_link(number) == CgroupKey(NAME, SocketHook.RECVMSG4)
    assert host.table.key_of_link(0) is None


ALLOW = [programs.move(0, 1), programs.leave()]


def _link(pin: Path) -> programs.CgroupLinkInfo:
    with held(syscalls.get(str(pin))) as link:
        return programs.cgroup_link_info(link)
