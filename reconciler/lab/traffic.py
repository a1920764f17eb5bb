"""Real connections between the workloads of a lab: a TCP server in one of them, attempts from the others."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from reconciler.errors import PlumbError
from reconciler.kernel import netns

ATTEMPT_TIMEOUT_S = 0.5
_SERVER_TIMEOUT_S = 10.0
_PAUSE_S = 0.02
# Answers each line with itself, on both families, until it is ended.
_SERVER = """
import contextlib, socket, sys, threading
def serve(connection):
    with contextlib.suppress(OSError), connection, connection.makefile("rwb", buffering=0) as lines:
        for line in lines:
            lines.write(line)
listener = socket.create_server(("::", int(sys.argv[1])), family=socket.AF_INET6, dualstack_ipv6=True)
while True:
    threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()
"""


@contextmanager
def echo_server(namespace: str, port: int) -> Iterator[None]:
    """A server in that network namespace while the block runs."""
    with netns.inside(namespace):
        process = subprocess.Popen([sys.executable, "-ISc", _SERVER, str(port)], stdin=subprocess.DEVNULL)
    try:
        _wait_until_open(namespace, port)
        yield
    finally:
        process.terminate()
        process.wait()


def answers(namespace: str, address: str, port: int, timeout_s: float = ATTEMPT_TIMEOUT_S) -> bool:
    """Whether a line sent from that namespace comes back."""
    try:
        with netns.inside(namespace), socket.create_connection((address, port), timeout_s) as connection:
            return echoes(connection, timeout_s)
    except OSError:
        return False


def echoes(connection: socket.socket, timeout_s: float = ATTEMPT_TIMEOUT_S) -> bool:
    """Whether a line comes back on a connection that is open."""
    connection.settimeout(timeout_s)
    try:
        connection.sendall(b"plumb\n")
        return connection.recv(16) == b"plumb\n"
    except OSError:
        return False


def _wait_until_open(namespace: str, port: int) -> None:
    deadline = time.monotonic() + _SERVER_TIMEOUT_S
    while not answers(namespace, "127.0.0.1", port):
        if time.monotonic() > deadline:
            raise PlumbError(f"the server in {namespace} did not open port {port}")
        time.sleep(_PAUSE_S)
