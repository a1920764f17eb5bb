"""`plumb validate` and `plumb hook`: what is wrong is said with its place, and the exit code says that it is wrong."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from tests.unit.cli.plumb import CHECKOUT, plumb

QUICKSTART = CHECKOUT / "examples" / "quickstart"
BAD_POLICY = """\
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: bad, namespace: default}
spec:
  podSelector: {}
  ingress:
    - ports: [{port: 70000}]
"""


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A policy repository with one good commit."""
    path = tmp_path / "policies"
    subprocess.run(["cp", "-r", str(QUICKSTART), str(path)], check=True)
    git(path, "init", "-q", "-b", "main")
    commit(path)
    return path


def git(path: Path, *arguments: str) -> str:
    identity = ["-c", "user.name=test", "-c", "user.email=test@example.org"]
    command = ["git", *identity, *arguments]
    return subprocess.run(command, cwd=path, check=True, capture_output=True, text=True).stdout.strip()


def commit(path: Path) -> str:
    git(path, "add", ".")
    git(path, "commit", "-q", "-m", "test")
    return git(path, "rev-parse", "HEAD")


def test_a_good_directory_is_summed_up() -> None:
    result = plumb("validate", str(QUICKSTART))
    assert result.returncode == 0
    assert result.stdout == "valid: 1 node, 3 workloads, 1 policy rule, 0 warnings\n"


def test_a_fault_is_printed_with_its_place_and_exits_with_3(repository: Path) -> None:
    (repository / "policies" / "bad.yaml").write_text(BAD_POLICY)
    result = plumb("validate", str(repository))
    assert result.returncode == 3
    assert result.stderr.startswith("policies/bad.yaml:7:22: ")
    assert "70000" in result.stderr


def test_faults_as_json_are_on_standard_output(repository: Path) -> None:
    (repository / "policies" / "bad.yaml").write_text(BAD_POLICY)
    result = plumb("validate", str(repository), "-o", "json")
    assert result.returncode == 3
    fault = json.loads(result.stdout)["faults"][0]
    assert (fault["path"], fault["line"], fault["column"]) == ("policies/bad.yaml", 7, 22)


def test_a_commit_is_checked_without_its_work_tree(repository: Path) -> None:
    (repository / "policies" / "bad.yaml").write_text(BAD_POLICY)
    assert plumb("validate", "--repository", str(repository)).returncode == 0
    commit(repository)
    assert plumb("validate", "--repository", str(repository), "main").returncode == 3
    assert plumb("validate", "--repository", str(repository), "main~1").returncode == 0


def test_a_commit_that_is_not_there_exits_with_4(repository: Path) -> None:
    assert plumb("validate", "--repository", str(repository), "elsewhere").returncode == 4


def test_something_that_is_no_directory_exits_with_2(tmp_path: Path) -> None:
    assert plumb("validate", str(tmp_path / "none")).returncode == 2


def test_the_hook_accepts_a_good_push_without_a_daemon(repository: Path) -> None:
    new = git(repository, "rev-parse", "HEAD")
    result = plumb("hook", "pre-receive", cwd=repository / ".git", stdin=f"{'0' * 40} {new} refs/heads/main\n")
    assert result.returncode == 0
    assert f"{new[:12]} on main is valid" in result.stdout


def test_the_hook_refuses_a_bad_push_with_its_place(repository: Path) -> None:
    (repository / "policies" / "bad.yaml").write_text(BAD_POLICY)
    new = commit(repository)
    result = plumb("hook", "pre-receive", cwd=repository / ".git", stdin=f"{'0' * 40} {new} refs/heads/main\n")
    assert result.returncode == 3
    assert result.stdout.startswith("policies/bad.yaml:7:22: ")


def test_the_hook_leaves_tags_and_deleted_branches_alone(repository: Path) -> None:
    new = git(repository, "rev-parse", "HEAD")
    lines = f"{'0' * 40} {new} refs/tags/v1\n{new} {'0' * 40} refs/heads/topic\n"
    result = plumb("hook", "pre-receive", cwd=repository / ".git", stdin=lines)
    assert (result.returncode, result.stdout) == (0, "")


def test_the_hook_says_so_when_git_did_not_call_it() -> None:
    assert plumb("hook", "pre-receive", stdin="hello\n").returncode == 2


def test_what_looks_wrong_is_a_warning_and_no_fault(repository: Path) -> None:
    policy = BAD_POLICY.replace("70000", "80").replace("podSelector: {}", "podSelector: {matchLabels: {app: wbe}}")
    (repository / "policies" / "bad.yaml").write_text(policy)
    result = plumb("validate", str(repository))
    message = 'NetworkPolicy/default/bad selects no workload: no workload is app=wbe; did you mean "web"?'
    assert (result.returncode, result.stderr) == (0, f"policies/bad.yaml:1:1: warning: {message}\n")
    assert result.stdout.endswith("1 warning\n")
    [warning] = json.loads(plumb("validate", str(repository), "-o", "json").stdout)["warnings"]
    assert warning["message"] == message
    new = commit(repository)
    pushed = plumb("hook", "pre-receive", cwd=repository / ".git", stdin=f"{'0' * 40} {new} refs/heads/main\n")
    assert (pushed.returncode, message in pushed.stdout) == (0, True)


@pytest.mark.parametrize(
    ("entry", "place"),
    [
        ("spec:\n  podSelector: {}\n  ingress:\n    - from: [{podSelector: {matchLabels: {app: wbe}}}]\n", "7:7"),
        ("spec: {podSelector: {}, ingress: [{from: [{podSelector: {matchLabels: {app: wbe}}}]}]}\n", "4:35"),
    ],
)
def test_a_warning_of_an_entry_has_its_column(repository: Path, entry: str, place: str) -> None:
    (repository / "policies" / "bad.yaml").write_text(BAD_POLICY.partition("spec:")[0] + entry)
    warned = plumb("validate", str(repository)).stderr
    assert warned.startswith(
        f"policies/bad.yaml:{place}: warning: ingress[0] of NetworkPolicy/default/bad: no workload"
    )


def test_lines_on_standard_input_are_answered_one_by_one() -> None:
    rule = {"endpointSelector": {}, "ingress": [{}]}
    lines = [{"id": 1, "rule": rule}, {"id": "b", "rule": {}}, {"id": [3], "doc": BAD_POLICY}]
    result = plumb("validate", "--jsonl", stdin="\n".join(["", *map(json.dumps, lines), ""]))
    answers = [json.loads(line) for line in result.stdout.splitlines()]
    assert [(one["id"], one["valid"]) for one in answers] == [
        (None, False),
        (1, True),
        ("b", False),
        ([3], False),
    ]
    assert answers[0]["errors"] == ["standard input:1:1: the line is empty"]
    assert answers[1]["errors"] == []
    assert answers[2]["errors"][0].startswith("standard input:3:")
    assert result.returncode == 0


def test_lines_of_a_file_that_is_not_there_exit_with_2(tmp_path: Path) -> None:
    assert plumb("validate", "--jsonl", str(tmp_path / "none")).returncode == 2
    assert plumb("validate", "--jsonl", "--repository", str(tmp_path)).returncode == 2
