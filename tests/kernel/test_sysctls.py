"""Sysctls as a table, in the real /proc/sys."""

from __future__ import annotations

from pathlib import Path

import pytest

from reconciler.errors import KernelError
from reconciler.kernel.netns import NamespaceMissing
from reconciler.kernel.sysctls import SysctlsTable
from reconciler.model.network import Sysctl, SysctlKey

from .hands import NETNS, PREFIX, ip_in

FORWARD = "net/ipv4/ip_forward"


def test_a_value_is_written_in_its_own_namespace_only(host: str, workload: str) -> None:
    here, there = SysctlKey("", FORWARD), SysctlKey(workload, FORWARD)
    sysctls = SysctlsTable(lambda: [here, there])
    sysctls.write({here: Sysctl("0"), there: Sysctl("1")}, ())
    assert sysctls.live().rows == {here: Sysctl("0"), there: Sysctl("1")}
    assert sysctls.live([there]).rows == {there: Sysctl("1")}
    assert Path("/proc/sys", FORWARD).read_text() == "0\n"


def test_several_numbers_read_with_single_blanks(host: str) -> None:
    key = SysctlKey("", "net/ipv4/ping_group_range")
    sysctls = SysctlsTable(lambda: [key])
    sysctls.write({key: Sysctl("100 200")}, ())
    assert sysctls.live().rows == {key: Sysctl("100 200")}


def test_a_list_becomes_empty_again(host: str) -> None:
    key = SysctlKey("", "net/ipv4/ip_local_reserved_ports")
    sysctls = SysctlsTable(lambda: [key])
    for value in ("8080,9000-9100", ""):
        sysctls.write({key: Sysctl(value)}, ())
        assert sysctls.live().rows == {key: Sysctl(value)}


def test_a_changed_value_differs_and_is_repaired(workload: str) -> None:
    key = SysctlKey(workload, "net/ipv6/conf/lo/accept_dad")
    sysctls = SysctlsTable(lambda: [key])
    sysctls.write({key: Sysctl("0")}, ())
    ip_in(workload, "netns exec " + workload.rsplit("/", 1)[1] + " sysctl -qw net.ipv6.conf.lo.accept_dad=1")
    assert sysctls.live().rows == {key: Sysctl("1")}
    sysctls.write({key: Sysctl("0")}, ())
    assert sysctls.live().rows == {key: Sysctl("0")}


def test_the_hosts_own_namespace_is_not_a_workloads(host: str) -> None:
    with pytest.raises(KernelError, match="is the host's own network namespace"):
        SysctlsTable(tuple).write({SysctlKey(host, FORWARD): Sysctl("0")}, ())


def test_a_deleted_sysctl_keeps_its_value_and_is_no_row_until_it_is_written(host: str) -> None:
    key = SysctlKey("", FORWARD)
    sysctls = SysctlsTable(lambda: [key])
    sysctls.write({key: Sysctl("1")}, ())
    sysctls.write({}, [key])
    assert sysctls.live().rows == {}
    assert SysctlsTable(lambda: [key]).live().rows == {key: Sysctl("1")}
    sysctls.write({key: Sysctl("1")}, ())
    assert sysctls.live().rows == {key: Sysctl("1")}


def test_the_sysctl_of_a_missing_link_is_not_there_and_cannot_be_written(host: str) -> None:
    key = SysctlKey("", "net/ipv4/conf/ptnone/rp_filter")
    sysctls = SysctlsTable(lambda: [key])
    assert sysctls.live().rows == {}
    with pytest.raises(KernelError, match="cannot set net/ipv4/conf/ptnone/rp_filter to '0': No such file"):
        sysctls.write({key: Sysctl("0")}, ())


def test_a_value_that_the_kernel_refuses_is_an_error(host: str) -> None:
    with pytest.raises(KernelError, match="cannot set net/ipv4/ip_forward to 'maybe': Invalid argument"):
        SysctlsTable(tuple).write({SysctlKey("", FORWARD): Sysctl("maybe")}, ())


@pytest.mark.parametrize("name", ["../../etc/hostname", "/etc/hostname", "net/../../../etc/hostname", ""])
def test_a_name_cannot_lead_out_of_proc_sys(host: str, name: str) -> None:
    with pytest.raises(KernelError, match="is not the name of a sysctl"):
        SysctlsTable(tuple).write({SysctlKey("", name): Sysctl("x")}, ())


def test_a_missing_namespace_is_an_error_on_write_and_nothing_on_read(host: str) -> None:
    key = SysctlKey(str(NETNS / f"{PREFIX}missing"), FORWARD)
    sysctls = SysctlsTable(lambda: [key])
    assert sysctls.live().rows == {}
    with pytest.raises(NamespaceMissing):
        sysctls.write({key: Sysctl("1")}, ())
