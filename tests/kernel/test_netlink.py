"""The netlink socket itself: interrupted dumps, lost capabilities, port ids."""

from __future__ import annotations

import os
import subprocess
import sys
from ipaddress import ip_network

import pytest

from reconciler.errors import KernelError
from reconciler.kernel.netlink import DUMP_INTERRUPTED, DUMP_RETRIES, HEADER, Netlink, own_ports
from reconciler.kernel.routes import GET, RTMSG

WITHOUT_CAPABILITIES = ("setpriv", "--bounding-set=-all", "--inh-caps=-all")


class Interrupting:
    """A real socket whose first answers say that the dump was interrupted: the kernel does so only by chance."""

    def __init__(self, netlink: Netlink, times: int) -> None:
        self._socket = netlink.socket
        self.left = times

    def sendto(self, data: bytes, to: tuple[int, int]) -> int:
        return self._socket.sendto(data, to)

    def recv(self, size: int) -> bytes:
        datagram = self._socket.recv(size)
        if not self.left:
            return datagram
        self.left -= 1
        length, kind, flags, sequence, port_id = HEADER.unpack_from(datagram)
        return HEADER.pack(length, kind, flags | DUMP_INTERRUPTED, sequence, port_id) + datagram[HEADER.size :]

    def close(self) -> None:
        self._socket.close()


def dump_interrupted(times: int) -> int:
    with Netlink() as netlink:
        netlink.socket = Interrupting(netlink, times)
        return len(netlink.dump(GET, RTMSG.pack(2, 0, 0, 0, 0, 0, 0, 0, 0)))


def test_an_interrupted_dump_is_read_again(veth: str) -> None:
    assert dump_interrupted(3) == dump_interrupted(0) > 0


def test_a_dump_that_is_always_interrupted_is_an_error(veth: str) -> None:
    with pytest.raises(KernelError, match=f"kept changing during {DUMP_RETRIES} reads"):
        dump_interrupted(1000)


def test_open_sockets_have_port_ids_that_are_known_as_ours(host: str) -> None:
    with Netlink() as one, Netlink() as other:
        assert one.port_id != other.port_id
        assert {one.port_id, other.port_id} <= own_ports()


def test_port_ids_are_used_again(host: str) -> None:
    with Netlink() as first:
        port_id = first.port_id
    with Netlink() as second:
        assert second.port_id == port_id


def run_without_capabilities(program: str) -> str:
    command = [*WITHOUT_CAPABILITIES, sys.executable, "-c", program]
    return subprocess.run(command, capture_output=True, text=True, check=True, cwd=os.getcwd()).stdout


def test_writing_without_the_capability_says_so(host: str) -> None:
    said = run_without_capabilities(
        "from ipaddress import ip_network\n"
        "from reconciler.errors import PermissionMissing\n"
        "from reconciler.kernel.routes import RoutesTable\n"
        "from reconciler.model.network import Route, RouteKey\n"
        "try: RoutesTable().write({RouteKey('', ip_network('10.1.0.0/24'), 254, 0): Route('lo')}, ())\n"
        "except PermissionMissing as error: print(error.exit_code, error)\n"
    )
    assert said == "11 cannot write route 10.1.0.0/24 table 254 metric 0: Operation not permitted\n"


def test_entering_a_namespace_without_the_capability_says_so(workload: str) -> None:
    said = run_without_capabilities(
        "from reconciler.errors import PermissionMissing\n"
        "from reconciler.kernel.routes import RoutesTable\n"
        f"try: RoutesTable(lambda: [{workload!r}]).live()\n"
        "except PermissionMissing as error: print(error)\n"
    )
    assert said == f"cannot enter the network namespace {workload}: Operation not permitted\n"


def test_reading_needs_no_capability(veth: str) -> None:
    subprocess.run(f"ip route add {ip_network('10.1.0.0/24')} dev {veth} proto 112".split(), check=True)
    said = run_without_capabilities(
        "from reconciler.kernel.routes import RoutesTable\nprint(len(RoutesTable().live()))\n"
    )
    assert said == "1\n"
