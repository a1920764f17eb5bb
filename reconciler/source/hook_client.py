"""A git hook of a Plumbline policy repository: asks the daemon, or starts `plumb hook` where none listens or answers.

`plumb init --bare` copies this file behind a `#!` line and sets its constants; nothing imports it. It runs under
`python3 -ISE` with built-in modules only, so that a push waits 10 ms for it and not 100.
"""

import _socket
import posix
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import NoReturn

NAME = "pre-receive"
PYTHON = "/usr/bin/python3"
PACKAGE = "/usr/lib/python3/dist-packages"  # the directory that holds the package `reconciler`

SILENCE_S = 3  # the daemon gives a sign of life every second; see reconciler/daemon/heartbeat.py
LINE_TIMEOUT_S = 120  # alive, and yet not a line of its answer


def main() -> int:
    path = socket_path(b"config")
    if not path:
        start_command()
    connection = connect(path)
    updates = read_all(0)
    try:
        send(connection, updates)
        return show(connection)
    except TimeoutError:
        check_here(updates)
    except (OSError, EOFError):
        write(b"plumb: the daemon's answer was cut short\n")
        check_here(updates)


def socket_path(config: bytes) -> bytes:
    """`plumb.socket` of the repository's own configuration, empty if it is not set. Hooks run in the git directory."""
    section = value = b""
    for line in read_file(config).split(b"\n"):
        line = line.strip()
        if line[:1] == b"[":
            section = line[1 : line.find(b"]")].strip().lower()
        elif section == b"plumb":
            key, _, text = line.partition(b"=")
            if key.strip().lower() == b"socket":
                value = text.strip().strip(b'"')
    return value


def connect(path: bytes) -> "_socket.socket":
    """Where nobody listens this process becomes `plumb hook`; so it does where a hung daemon's queue is full."""
    connection = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM)
    connection.settimeout(SILENCE_S)
    try:
        connection.connect(path)
    except (TimeoutError, BlockingIOError):
        start_command("--unanswered")
    except OSError:
        start_command()
    return connection


def start_command(*options: str) -> "NoReturn":
    """Becomes `plumb hook`; standard input is as git gave it."""
    environment = dict(posix.environ)
    environment[b"PYTHONPATH"] = PACKAGE.encode("utf-8", "surrogateescape")
    posix.execve(PYTHON, [PYTHON, "-P", "-m", "reconciler.cli", "hook", NAME, *options], environment)


def check_here(updates: bytes) -> "NoReturn":
    give_back(updates)
    start_command("--unanswered")


def give_back(updates: bytes) -> None:
    """Makes them standard input again."""
    file = posix.memfd_create("updates", 0)
    write(updates, file)
    posix.lseek(file, 0, 0)
    posix.dup2(file, 0)


def send(connection: "_socket.socket", lines: bytes) -> None:
    updates = [line.split(b" ", 2) for line in lines.split(b"\n") if line]
    git = [(key, value) for key, value in posix.environ.items() if key[:4] == b"GIT_"]
    repository = quoted(posix.getcwd().encode("utf-8", "surrogateescape"))
    pushed = ", ".join("[" + ", ".join(quoted(part) for part in update) + "]" for update in updates)
    environment = ", ".join(quoted(key) + ": " + quoted(value) for key, value in git)
    body = f'{{"repository": {repository}, "updates": [{pushed}], "environment": {{{environment}}}}}'
    head = f"POST /v1/hook/{NAME} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
    head += f"Heartbeat: 1\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    connection.sendall((head + body).encode("ascii"))


def quoted(text: bytes) -> str:
    """A JSON string in ASCII. Bytes that are not UTF-8 become lone surrogates, as in Python's file names."""
    out = ['"']
    for char in text.decode("utf-8", "surrogateescape"):
        code = ord(char)
        if 32 <= code < 127 and char not in '"\\':
            out.append(char)
        elif code < 0x10000:
            out.append(f"\\u{code:04x}")
        else:
            out.append(f"\\u{0xD7C0 + (code >> 10):04x}\\u{0xDC00 + (code & 0x3FF):04x}")
    return "".join(out) + '"'


def show(connection: "_socket.socket") -> int:
    """Passes lines on as they come. The last one is `exit N`, and is not shown.

    Raises TimeoutError, and EOFError or OSError for an answer without this line.
    """
    held = partial = b""
    heard = time.monotonic()
    for piece in pieces(connection):
        piece = piece.replace(b"\0", b"")  # signs of life
        if piece:
            heard = time.monotonic()
        elif time.monotonic() - heard > LINE_TIMEOUT_S:
            raise TimeoutError
        *lines, partial = (partial + piece).split(b"\n")
        for line in lines:
            if held:
                write(held + b"\n")
            held = b""
            if line[:5] == b"exit ":
                held = line
            else:
                write(line + b"\n")
    if held and not partial and held[5:].isdigit():
        return min(int(held[5:]), 255)
    if held or partial:
        write((held + b"\n" if held else b"") + partial + b"\n")
    raise EOFError


def pieces(connection: "_socket.socket") -> "Iterator[bytes]":
    """The body of the answer as it arrives; RFC 9112, chunked or until the end. An error is a refusal."""
    data, status = b"", b" 100"
    while b" 100" in status:  # a sign of life, and the answer is still to come
        yield b""
        while b"\r\n\r\n" not in data:
            data += receive(connection)
        head, _, data = data.partition(b"\r\n\r\n")
        status, *fields = head.lower().split(b"\r\n")
    is_error = b" 200" not in status
    if is_error:
        yield b"plumb: the daemon answered " + status.partition(b" ")[2].strip() + b": "
    if any(field.replace(b" ", b"") == b"transfer-encoding:chunked" for field in fields):
        yield from chunks(connection, data)
    else:
        while data:
            yield data
            data = connection.recv(65536)
    if is_error:
        yield b"\nexit 1\n"


def chunks(connection: "_socket.socket", data: bytes) -> "Iterator[bytes]":
    while True:
        while b"\r\n" not in data:
            data += receive(connection)
        size, _, data = data.partition(b"\r\n")
        left = int(size.partition(b";")[0], 16)
        if not left:
            return
        while left > 0:
            if not data:
                data = receive(connection)
            yield data[:left]
            left, data = left - len(data[:left]), data[left:]
        while len(data) < 2:  # the line end behind a chunk
            data += receive(connection)
        data = data[2:]


def receive(connection: "_socket.socket") -> bytes:
    """Raises EOFError or OSError where the daemon went away, TimeoutError where it went silent."""
    data = connection.recv(65536)
    if not data:
        raise EOFError
    return data


def read_file(path: bytes) -> bytes:
    try:
        file = posix.open(path, posix.O_RDONLY | posix.O_CLOEXEC)
    except OSError:
        return b""
    found = read_all(file)
    posix.close(file)
    return found


def read_all(file: int) -> bytes:
    found: list[bytes] = []
    while True:
        piece = posix.read(file, 65536)
        if not piece:
            return b"".join(found)
        found.append(piece)


def write(data: bytes, file: int = 1) -> None:
    while data:
        data = data[posix.write(file, data) :]


if __name__ == "__main__":
    posix._exit(main())
