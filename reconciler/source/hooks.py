"""`plumb init`: a policy repository to start from, and its server side with the hooks that check a push."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import git

from reconciler import shipped
from reconciler.errors import RepositoryError

BRANCH = "main"
HOOKS = ("pre-receive", "post-receive")
_LONGEST_INTERPRETER = 200  # a `#!` line is cut at 256 bytes (BINPRM_BUF_SIZE in linux/binfmts.h)
_SYSTEM_INTERPRETER = "/usr/bin/python3"
_IDENTITY = git.Actor("plumb", "plumb@localhost")


def hook(name: str) -> str:
    """The text of the hook with this name (of `HOOKS`), for the interpreter that runs now."""
    client = (Path(__file__).parent / "hook_client.py").read_text()
    constants = {"NAME": name, "PYTHON": sys.executable, "PACKAGE": str(Path(__file__).parents[2])}
    lines = []
    for line in client.splitlines():
        constant = line.partition(" = ")[0]
        lines.append(f"{constant} = {constants.pop(constant)!r}" if constant in constants else line)
    return "\n".join([f"#!{_interpreter()} -ISE", *lines, ""])


def _interpreter() -> str:
    usable = len(sys.executable) <= _LONGEST_INTERPRETER and not any(char.isspace() for char in sys.executable)
    return sys.executable if usable else _SYSTEM_INTERPRETER


def install(git_directory: Path) -> None:
    """Write the hooks; those of an earlier version are replaced, other people's are not."""
    directory = git_directory / "hooks"
    directory.mkdir(exist_ok=True)
    for name in HOOKS:
        path = directory / name
        if path.exists() and "plumb" not in path.read_text(errors="replace"):
            raise RepositoryError(
                f"{path} is there already and is not ours", remedy=f"move it away, or call `plumb hook {name}` in it"
            )
        new = path.with_name(f"{name}.new")
        new.write_text(hook(name))
        new.chmod(0o755)
        new.replace(path)


def init_repository(directory: str | Path) -> None:
    """Make a policy repository: example manifests, a README, and a first commit on `main`.

    Raises RepositoryError if the directory holds anything.
    """
    directory = Path(directory)
    _refuse_occupied(directory)
    try:
        shutil.copytree(shipped.quickstart(), directory, dirs_exist_ok=True)
        with git.Repo.init(directory, initial_branch=BRANCH, expand_vars=False) as repository:
            repository.git.add("--all")
            who = _author(repository)
            repository.index.commit("policies: an example to start from", author=who, committer=who)
    except (OSError, git.exc.GitCommandError) as e:
        raise RepositoryError(f"{directory} cannot be made: {e}") from e


def init_bare(path: str | Path, source: str | Path | None = None) -> None:
    """Make the server side, or give hooks to the one that is there.

    `source` is a policy repository whose `origin` it becomes and whose `main` it gets.
    Raises RepositoryError if the path holds anything else than a bare repository.
    """
    path = Path(path).absolute()
    try:
        with _bare(path) as bare:
            with bare.config_writer() as config:
                config.set_value("receive", "fsckObjects", "true")  # a broken object is refused before any hook
            if source is not None:
                _connect(Path(source), path)
        install(path)
    except (OSError, git.exc.GitCommandError) as e:
        raise RepositoryError(f"{path} cannot be made: {e}") from e


def _bare(path: Path) -> git.Repo:
    if path.is_dir() and any(path.iterdir()):
        try:
            found = git.Repo(path, expand_vars=False)
        except git.exc.InvalidGitRepositoryError:
            found = None
        if found is None or not found.bare:
            raise RepositoryError(f"{path} is there and is not a bare repository", remedy="choose another path")
        return found
    return git.Repo.init(path, bare=True, initial_branch=BRANCH, expand_vars=False)


def _connect(source: Path, path: Path) -> None:
    """Before the hooks are there: what is pushed now was made a moment ago, by us."""
    with git.Repo(source, expand_vars=False) as repository:
        if "origin" in [remote.name for remote in repository.remotes]:
            raise RepositoryError(f"{source} has an origin already", remedy=f"git -C {source} push {path} {BRANCH}")
        repository.create_remote("origin", str(path))
        repository.git.push("--set-upstream", "origin", BRANCH)


def _refuse_occupied(directory: Path) -> None:
    if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
        raise RepositoryError(f"{directory} is not empty", remedy="choose a directory that is not there yet")


def _author(repository: git.Repo) -> git.Actor:
    """Whoever git knows; a machine without a name for its user still gets a commit."""
    with repository.config_reader() as config:
        name, email = config.get_value("user", "name", ""), config.get_value("user", "email", "")
    return git.Actor(str(name), str(email)) if name and email else _IDENTITY
