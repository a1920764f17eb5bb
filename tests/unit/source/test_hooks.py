"""`plumb init` and its hooks, with real pushes: to a daemon's socket, and without one."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import h11
import pytest

from reconciler.errors import RepositoryError
from reconciler.source import hooks
from reconciler.source.loading import Cache, load
from reconciler.source.tree import is_manifest

from .policy_repository import commit, git

UNANSWERED = (
    "plumb: the daemon of this host does not answer (it is stopped, busy or gone); "
    "the commit was checked here and will be applied when it is back"
)
REFUSED = "refused: 2:5: port 70000 is above 65535"


class Daemon:
    """The other end of the hooks: an HTTP server on a unix socket that answers every request alike."""

    def __init__(
        self,
        path: Path,
        pieces: Sequence[bytes],
        *,
        status: int = 200,
        cut_short: bool = False,
        signs: int = 0,
        resets: bool = False,
    ) -> None:
        self.requests: list[tuple[str, Any]] = []
        self._answer = (pieces, status, cut_short)
        self._resets = resets  # closes with the request unread
        self._signs = signs  # of life, before the answer begins
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.bind(str(path))
        self._socket.listen()
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def close(self) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        self._thread.join()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            with connection:
                if not self._resets:
                    self._converse(connection)
                else:
                    connection.recv(1)  # what is unread when a unix socket is closed resets the other end

    def _converse(self, connection: socket.socket) -> None:
        import json

        http = h11.Connection(h11.SERVER)
        target, body = "", b""
        while not isinstance(event := http.next_event(), h11.EndOfMessage):
            if event is h11.NEED_DATA:
                http.receive_data(connection.recv(65536))
            elif isinstance(event, h11.Request):
                target = event.target.decode()
            elif isinstance(event, h11.Data):
                body += event.data
        self.requests.append((target, json.loads(body)))
        pieces, status, cut_short = self._answer
        for _ in range(self._signs):
            connection.sendall(http.send(h11.InformationalResponse(status_code=100, headers=[])) or b"")
        head = h11.Response(status_code=status, headers=[("Content-Type", "text/plain"), ("Connection", "close")])
        connection.sendall(http.send(head) or b"")
        for piece in pieces:
            connection.sendall(http.send(h11.Data(data=piece)) or b"")
        if not cut_short:
            connection.sendall(http.send(h11.EndOfMessage()) or b"")


@pytest.fixture
def sides(tmp_path: Path) -> tuple[Path, Path]:
    """A policy repository and its server side."""
    hooks.init_repository(tmp_path / "policies")
    hooks.init_bare(tmp_path / "policies.git", tmp_path / "policies")
    return tmp_path / "policies", tmp_path / "policies.git"


@pytest.fixture
def answering(sides: tuple[Path, Path], tmp_path: Path) -> Iterator[Any]:
    """Start a daemon that the server side's hooks ask."""
    daemons: list[Daemon] = []

    def start(*pieces: bytes, **how: Any) -> Daemon:
        path = tmp_path / "plumb.sock"
        git(sides[1], "config", "plumb.socket", str(path))
        daemons.append(Daemon(path, pieces, **how))
        return daemons[-1]

    yield start
    for daemon in daemons:
        daemon.close()


def push(source: Path) -> tuple[int, list[str]]:
    """Exit code and what the other side said."""
    done = subprocess.run(["git", "-C", str(source), "push"], capture_output=True, text=True)
    said = [line.removeprefix("remote: ").rstrip() for line in done.stderr.splitlines() if line.startswith("remote:")]
    return done.returncode, said


def test_a_new_repository_is_valid_and_committed(tmp_path: Path) -> None:
    hooks.init_repository(tmp_path / "policies")
    cache = Cache()
    found = load(tmp_path / "policies", "main", cache)
    cache.close()
    assert found.warnings == ()
    assert len(found.workloads) == 3
    assert git(tmp_path / "policies", "status", "--porcelain") == ""
    assert (tmp_path / "policies" / "README.md").read_text().startswith("# A policy repository")


def test_a_directory_that_holds_anything_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("")
    with pytest.raises(RepositoryError, match="is not empty"):
        hooks.init_repository(tmp_path)
    with pytest.raises(RepositoryError, match="is not a bare repository"):
        hooks.init_bare(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


def test_the_server_side_gets_the_branch_and_its_own_hooks(sides: tuple[Path, Path]) -> None:
    source, bare = sides
    assert git(bare, "rev-parse", "main") == git(source, "rev-parse", "main")
    assert git(source, "rev-parse", "--abbrev-ref", "main@{upstream}") == "origin/main"
    for name in hooks.HOOKS:
        assert (bare / "hooks" / name).stat().st_mode & 0o777 == 0o755
        assert (bare / "hooks" / name).read_text().startswith(f"#!{sys.executable} -ISE\n")


def test_the_hooks_can_be_written_again(sides: tuple[Path, Path]) -> None:
    hooks.init_bare(sides[1])
    (sides[1] / "hooks" / "pre-receive").write_text("#!/bin/sh\nexit 0\n")
    with pytest.raises(RepositoryError, match="is there already and is not ours"):
        hooks.init_bare(sides[1])


def test_a_push_is_shown_what_the_daemon_says_line_by_line(sides: tuple[Path, Path], answering: Any) -> None:
    daemon = answering(b"plan for alpha\npol", b"icy +3 ~1 -0\nexit", b" 0\n")
    old, new = git(sides[0], "rev-parse", "main"), commit(sides[0], {"x": "1"})
    assert push(sides[0]) == (0, ["plan for alpha", "policy +3 ~1 -0"] * 2)
    [(before, body), (after, _)] = daemon.requests
    assert (before, after) == ("/v1/hook/pre-receive", "/v1/hook/post-receive")
    assert body["repository"] == str(sides[1])
    assert body["updates"] == [[old, new, "refs/heads/main"]]
    assert body["environment"]["GIT_QUARANTINE_PATH"].startswith(str(sides[1]))


def test_a_push_that_the_daemon_refuses_changes_nothing(sides: tuple[Path, Path], answering: Any) -> None:
    answering(f"{REFUSED}\nexit 1\n".encode())
    old = git(sides[1], "rev-parse", "main")
    commit(sides[0], {"x": "1"})
    code, said = push(sides[0])
    assert (code != 0, said) == (True, [REFUSED])
    assert git(sides[1], "rev-parse", "main") == old


@pytest.mark.parametrize("cut_short", [False, True])
@pytest.mark.parametrize("pieces", [(b"plan",), (b"exit 0\n", b"more\n"), (b"exit zero\n",), ()])
def test_a_good_push_is_checked_here_where_the_answer_breaks_off_before_its_exit_code(
    sides: tuple[Path, Path], answering: Any, pieces: tuple[bytes, ...], cut_short: bool
) -> None:
    answering(*pieces, cut_short=cut_short)
    new = commit(sides[0], {"x": "1"})
    code, said = push(sides[0])
    assert (code, git(sides[1], "rev-parse", "main")) == (0, new)
    at = said.index("plumb: the daemon's answer was cut short")
    assert said[at + 1].startswith(f"plumb: {new[:12]} on main is valid")
    assert said[at + 2] == UNANSWERED
    assert said[-1].startswith("plumb: it is not known whether the commit is applied")


@pytest.mark.parametrize("cut_short", [False, True])
def test_a_bad_push_is_refused_where_the_answer_breaks_off(
    sides: tuple[Path, Path], answering: Any, cut_short: bool
) -> None:
    answering(b"plan\n", cut_short=cut_short)
    old = git(sides[1], "rev-parse", "main")
    commit(sides[0], {"bad.yaml": "apiVersion: plumbline/v1\nkind: Workload\n"})
    code, said = push(sides[0])
    assert (code != 0, git(sides[1], "rev-parse", "main")) == (True, old)
    assert said[:2] == ["plan", "plumb: the daemon's answer was cut short"]
    assert said[2].startswith("bad.yaml:")


def test_a_daemon_that_resets_the_connection_is_one_that_is_away(sides: tuple[Path, Path], answering: Any) -> None:
    answering(resets=True)
    new = commit(sides[0], {"x": "1"})
    code, said = push(sides[0])
    assert (code, git(sides[1], "rev-parse", "main")) == (0, new)
    assert UNANSWERED in said


def test_an_error_of_the_daemon_is_shown_and_refuses(sides: tuple[Path, Path], answering: Any) -> None:
    answering(b'{"error": "no"}', status=409)
    commit(sides[0], {"x": "1"})
    code, said = push(sides[0])
    assert code != 0
    assert said[0] == 'plumb: the daemon answered 409: {"error": "no"}'


def test_strange_names_arrive_whole(tmp_path: Path, answering: Any, sides: tuple[Path, Path]) -> None:
    daemon = answering(b"exit 0\n")
    branch = 'a"é\U0001f600'
    git(sides[0], "push", "--quiet", "origin", f"main:refs/heads/{branch}")
    assert daemon.requests[0][1]["updates"][0][2] == f"refs/heads/{branch}"


def test_a_thousand_refs_fit_in_one_push(answering: Any, sides: tuple[Path, Path]) -> None:
    daemon = answering(b"exit 0\n")
    git(sides[0], "push", "--quiet", "origin", *(f"main:refs/heads/branch-{count}" for count in range(1000)))
    assert len(daemon.requests[0][1]["updates"]) == 1000


@pytest.fixture
def hung(sides: tuple[Path, Path], tmp_path: Path) -> Iterator[Path]:
    """The socket of a daemon that takes connections and never answers."""
    path = tmp_path / "plumb.sock"
    git(sides[1], "config", "plumb.socket", str(path))
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(str(path))
        listener.listen()
        yield path


def test_a_good_push_to_a_hung_daemon_is_checked_here_and_accepted(sides: tuple[Path, Path], hung: Path) -> None:
    new = commit(sides[0], {"x": "1"})
    code, said = push(sides[0])
    assert (code, git(sides[1], "rev-parse", "main")) == (0, new)
    assert said[0].startswith(f"plumb: {new[:12]} on main is valid")
    assert said[1] == UNANSWERED


def test_a_bad_push_to_a_hung_daemon_is_refused(sides: tuple[Path, Path], hung: Path) -> None:
    old = git(sides[1], "rev-parse", "main")
    commit(sides[0], {"bad.yaml": "apiVersion: plumbline/v1\nkind: Workload\n"})
    code, said = push(sides[0])
    assert (code != 0, git(sides[1], "rev-parse", "main")) == (True, old)
    assert said[0].startswith("bad.yaml:")
    assert not any("does not answer" in line for line in said)


def test_an_answer_among_signs_of_life_is_shown_without_them(sides: tuple[Path, Path], answering: Any) -> None:
    answering(b"plan\0 for", b"\0", b" alpha\n\0exit 0\n", b"\0", signs=2)
    commit(sides[0], {"x": "1"})
    assert push(sides[0]) == (0, ["plan for alpha"] * 2)


def test_without_a_daemon_the_command_gets_the_same_input(sides: tuple[Path, Path], tmp_path: Path) -> None:
    """A stand-in for the interpreter shows how the hook would start `plumb hook`."""
    shown = tmp_path / "shown"
    interpreter = tmp_path / "interpreter"
    interpreter.write_text(f'#!/bin/sh\necho "$@" "$PYTHONPATH" >> {shown}\ncat >> {shown}\n')
    interpreter.chmod(0o755)
    hook = sides[1] / "hooks" / "pre-receive"
    hook.write_text(hook.read_text().replace(f"PYTHON = {sys.executable!r}", f"PYTHON = {str(interpreter)!r}"))
    git(sides[1], "config", "plumb.socket", str(tmp_path / "nobody.sock"))
    old, new = git(sides[0], "rev-parse", "main"), commit(sides[0], {"x": "1"})
    assert push(sides[0])[0] == 0
    package = Path(hooks.__file__).parents[2]
    assert shown.read_text() == f"-P -m reconciler.cli hook pre-receive {package}\n{old} {new} refs/heads/main\n"


def test_what_is_shipped_to_start_from_is_manifests_and_a_readme(sides: tuple[Path, Path]) -> None:
    names = git(sides[0], "ls-files").splitlines()
    assert [name for name in names if not is_manifest(name)] == ["README.md"]


LOADED = """
import sys
exec(compile(sys.stdin.read(), "hook", "exec"), {"__name__": "hook"})
print(*(name for name, module in sys.modules.items() if getattr(module, "__file__", None)))
"""


def test_the_client_reads_no_module_of_the_standard_library(sides: tuple[Path, Path]) -> None:
    """A push waits for it: beyond what every interpreter starts with there is the extension for sockets only."""
    command = [sys.executable, "-ISE", "-c"]
    bare = subprocess.run([*command, LOADED], input="", capture_output=True, text=True, check=True)
    hook = subprocess.run(
        [*command, LOADED], input=hooks.hook("pre-receive"), capture_output=True, text=True, check=True
    )
    assert set(hook.stdout.split()) - set(bare.stdout.split()) <= {"_socket"}
