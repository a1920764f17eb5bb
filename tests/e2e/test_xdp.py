"""Services at XDP, with real connections: a client outside, a host that passes them on, a backend on another one."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest

from reconciler.bpf import programs
from reconciler.bpf.syscalls import held
from reconciler.kernel import netns
from tests.e2e.across import opened, sniffed
from tests.e2e.daemon_host import until
from tests.e2e.hosts import Hosts, made_hosts
from tests.e2e.offloads import TX_CHECKSUMS, switch
from tests.e2e.test_services_outside import ADMITTED, CLIENT, PORT, Servers, asks, host

pytestmark = pytest.mark.root
families = pytest.mark.parametrize("version", [4, 6])
SERVICES = {"cidrs": ["10.96.0.0/24", "fd96::/112"]}
FAR = f"""
apiVersion: v1
kind: Service
metadata: {{name: far}}
spec:
  type: NodePort
  ipFamilyPolicy: RequireDualStack
  selector: {{app: far}}
  ports: [{{name: tcp, port: 80, targetPort: {PORT}, nodePort: 30090}}]
"""
ROUND_TRIPS, HANDED_OVER = 30, 10  # the first packets of a connection at most
NATIVE = 1 << 2  # XDP_FLAGS_DRV_MODE


@contextmanager
def _passing_on(space: str, device: str) -> Iterator[None]:
    """While the block runs, the device has a program that does nothing."""
    flags, code = programs.XDP_HAS_FRAGS, (programs.move(0, 2), programs.leave())
    with netns.inside(space):
        index = socket.if_nametoindex(device)
        with held(programs.load_program(programs.XDP, code, flags=flags)) as program:
            link = programs.attach_xdp(program, index, NATIVE)
    with held(link):
        yield


@pytest.fixture(scope="module", params=["native", "generic", "auto"])
def hosts(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hosts]:
    """`a2` alone serves. The bridge's ends of the hosts' pairs run a program, or nothing could be sent back to them."""
    settings = {"network": {"directRoutes": True}, "services": SERVICES, "xdp": {"mode": request.param}}
    with made_hosts(tmp_path_factory.mktemp("hosts"), **settings) as made, ExitStack() as stack:
        for number in made.numbers:
            stack.enter_context(_passing_on(made.space("wire"), f"p{number}"))
        made.write("workloads/a2.yaml", made.workload("a", 2).replace('"app": "a"', '"app": "far"'))
        made.write("services.yaml", FAR)
        made.converge()
        Servers(made, stack)
        tentative = ["-6", "address", "show", "dev", "br0", "tentative"]
        until(lambda: not made.ip("wire", *tentative), "the client may use its IPv6 address")
        yield made


@pytest.fixture(params=["offloaded", "finished"])
def checksums(request: pytest.FixtureRequest, hosts: Hosts) -> Iterator[str]:
    """Whether client and backend leave the checksums of what they send to their devices."""
    ends = (("wire", "br0"), ("a2", "eth0"))
    for name, device in ends:
        switch(hosts.space(name), device, TX_CHECKSUMS, on=request.param == "offloaded")
    yield request.param
    for name, device in ends:
        switch(hosts.space(name), device, TX_CHECKSUMS, on=True)


@families
def test_a_connection_to_a_backend_elsewhere_is_right_whoever_makes_the_checksums(
    hosts: Hosts, checksums: str, version: int
) -> None:
    assert asks(hosts, host(hosts, 1, version), 30090) == ("a2", host(hosts, 1, version))


@families
def test_what_is_whole_goes_through_at_xdp_and_anything_else_by_the_kernel(
    hosts: Hosts, checksums: str, version: int
) -> None:
    """Whoever listens at the host's device sees only what the program has passed to the kernel."""
    with sniffed(hosts.space("h1"), "eth0") as seen:
        _talk(hosts, version)
    handed_over = [one for one in seen() if one.source == CLIENT[version]]
    if checksums == "finished":
        assert len(handed_over) < HANDED_OVER
    else:
        assert len(handed_over) >= ROUND_TRIPS


def _talk(hosts: Hosts, version: int) -> None:
    with opened(hosts.space("wire"), host(hosts, 1, version), socket.SOCK_STREAM) as client:
        client.connect((host(hosts, 1, version), 30090))
        with client.makefile("rwb") as stream:
            stream.readline()
            for _ in range(ROUND_TRIPS):
                stream.write(b"a word\n")
                stream.flush()
                assert stream.readline() == b"a word\n"


@families
def test_services_of_the_host_itself_are_still_served(hosts: Hosts, version: int) -> None:
    hosts.write("more.yaml", ADMITTED.replace("RANGES", f'{CLIENT[4]}/32, "{CLIENT[6]}/128"'))
    hosts.converge()
    assert asks(hosts, host(hosts, 1, version), 30080) == ("a1", CLIENT[version])
