"""Faults of the host itself: what is missing, taken, forbidden or full gets one clear error and its exit code."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import yaml

from reconciler.bpf.syscalls import MAP_BY_ID, by_id, held
from reconciler.kernel.bpf_maps import PinnedMaps
from reconciler.kernel.generation import Generation
from tests.e2e.daemon_host import DaemonHost, Finished, allowing, made_host, policy, until
from tests.e2e.packet_flow import lossless
from tests.e2e.tampering import erase

pytestmark = pytest.mark.root

PORT = 4000
WITHOUT_CAPABILITIES = ("setpriv", "--bounding-set=-all", "--inh-caps=-all")
WITHOUT_BPFFS = ("unshare", "--mount", "--propagation=private", "sh", "-c")


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DaemonHost]:
    with made_host(tmp_path_factory.mktemp("h"), "web", "client", audit_interval_s=600) as made:
        made.write("policies/web.yaml", policy("web", "web", ingress=[allowing("from", "client", PORT)]))
        made.wait_for(made.commit())
        yield made


@pytest.fixture
def host(shared: DaemonHost) -> DaemonHost:
    """Its daemon runs and has nothing to do."""
    if shared.daemon is None:
        shared.start()
    shared.settle()
    return shared


@pytest.fixture
def resting(host: DaemonHost) -> DaemonHost:
    """The same without its daemon."""
    host.stop()
    return host


def test_a_second_daemon_says_who_is_there_and_ends(host: DaemonHost) -> None:
    second = host.plumb("daemon")
    assert second.returncode == 12
    assert host.daemon
    assert f"error: this host is held by plumb daemon (pid {host.daemon.pid})" in second.stderr
    assert host.status()["state"] == "converged"


def test_a_command_does_not_write_beside_a_daemon_that_does_not_answer(host: DaemonHost) -> None:
    hidden = host.config.socket.with_name("hidden")
    host.config.socket.rename(hidden)
    refused = host.plumb("apply", "HEAD~1")
    hidden.rename(host.config.socket)
    assert refused.returncode == 12
    assert "is held by plumb daemon" in refused.stderr


def test_a_daemon_without_capabilities_names_what_is_missing(resting: DaemonHost) -> None:
    refused = _run(*_entered(resting), *WITHOUT_CAPABILITIES, *_plain(resting, "apply"))
    assert refused.returncode == 11
    assert "next: run as root" in refused.stderr
    with lossless(resting, "client", "web", PORT, _addresses(resting)):
        pass


@pytest.mark.parametrize(
    ("without", "named"),
    [(("net_admin",), "CAP_NET_ADMIN"), (("bpf", "sys_admin"), "CAP_BPF"), (("all",), "CAP_NET_ADMIN and no CAP_BPF")],
)
def test_a_capability_that_is_missing_is_named_before_anything_is_written(
    resting: DaemonHost, without: tuple[str, ...], named: str
) -> None:
    before = resting.plumb("history", "-o", "json").stdout
    lowered = ",".join(f"-{one}" for one in without)
    lowering = ("setpriv", f"--bounding-set={lowered}", f"--inh-caps={lowered}")
    for command in ("apply", "daemon"):
        refused = _run(*_entered(resting), *lowering, *_plain(resting, command))
        assert refused.returncode == 11
        assert f"error: this process has no {named}; nothing was changed" in refused.stderr
    assert resting.plumb("history", "-o", "json").stdout == before
    assert not (resting.config.state_directory / "journal" / "open.json").exists()


def test_a_transaction_that_was_interrupted_shows_in_the_status(resting: DaemonHost) -> None:
    opened = resting.config.state_directory / "journal" / "open.json"
    opened.write_bytes(b"{")
    told = resting.plumb("status")
    opened.unlink()
    assert "\nunfinished" in told.stdout
    assert "\nunfinished" not in resting.plumb("status").stdout


def test_a_missing_bpf_file_system_is_mounted(tmp_path: Path) -> None:
    """In a mount namespace of its own, which takes the pins along when it ends."""
    with made_host(tmp_path, "web", started=False) as host:
        script = f"mount -t tmpfs none /sys/fs/bpf && exec {' '.join(host.command('apply'))}"
        done = _run(*WITHOUT_BPFFS, f"{script} && grep ' /sys/fs/bpf ' /proc/self/mountinfo")
        assert done.returncode == 0, done.stderr
        assert not host.config.pin_root.exists()


def test_where_the_bpf_file_system_cannot_be_mounted_it_is_said_how(tmp_path: Path) -> None:
    with made_host(tmp_path, started=False) as host:
        forbidden = " ".join(("setpriv", "--bounding-set=-sys_admin", "--inh-caps=-sys_admin"))
        command = " ".join((*_entered(host), forbidden, *_plain(host, "apply")))
        refused = _run(*WITHOUT_BPFFS, f"mount -t tmpfs none /sys/fs/bpf && {command}")
        assert refused.returncode == 7
        assert "mounting the BPF file system at /sys/fs/bpf: Operation not permitted" in refused.stderr
        assert "next: mount it as root: mount -t bpf bpf /sys/fs/bpf" in refused.stderr


def test_pins_outside_a_bpf_file_system_are_refused_and_nothing_stays_half_done(tmp_path: Path) -> None:
    with made_host(tmp_path, "web", started=False) as host:
        before = host.ip("-d", "link")
        for _ in range(2):
            refused = _configured(host, pin_root=str(tmp_path / "pins"))
            assert refused.returncode == 7
            assert "the previous state was restored" in refused.stderr
            assert f"next: mount one there: mount -t bpf bpf {tmp_path}" in refused.stderr
            assert host.ip("-d", "link") == before
        applied = host.plumb("apply")
        assert applied.returncode == 0, applied.stderr


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"repositories": "/x"}, "unknown field 'repositories'; allowed are node, repository,"),
        ({"audit_interval_s": 0}, "audit_interval_s is 0; a number of seconds above 0 is needed"),
        ({"repository": "relative"}, "repository is 'relative'; an absolute path is needed"),
        ({"group": "no-such-group"}, "there is no group 'no-such-group' on this host"),
    ],
)
def test_a_wrong_configuration_is_refused_by_file_and_field(
    resting: DaemonHost, settings: dict[str, object], said: str
) -> None:
    refused = _configured(resting, **settings)
    assert refused.returncode == 2
    assert said in refused.stderr


def test_a_configuration_that_is_missing_or_no_yaml_is_refused(resting: DaemonHost) -> None:
    path = resting.directory / "config.yaml"
    content = path.read_text()
    path.write_text("{")
    assert resting.plumb("daemon").returncode == 2
    path.unlink()
    refused = resting.plumb("daemon")
    path.write_text(content)
    assert refused.returncode == 2
    assert f"{path}: there is no such file" in refused.stderr


def test_a_map_that_is_full_in_the_middle_of_an_apply(resting: DaemonHost) -> None:
    """Somebody filled the map of policies with entries that no packet asks for; undoing makes room for a next try."""
    base = resting.git("rev-parse", "HEAD")
    _fill_policy(resting)
    resting.write("policies/web.yaml", policy("web", "web", ingress=[allowing("from", "client", PORT, PORT + 1)]))
    commit = resting.commit()
    refused = resting.plumb("apply")
    assert refused.returncode == 7
    assert "map policy is full: 65536 of 65536 rows" in refused.stderr
    assert "the previous state was restored" in refused.stderr
    assert resting.plumb("plan", base).stdout.endswith("nothing changes\n")
    assert resting.plumb("apply").returncode == 0
    assert commit[:12] in resting.plumb("status").stdout


def test_a_repository_that_vanishes_and_comes_back_is_followed_again(host: DaemonHost) -> None:
    away = host.tree.with_name("away")
    host.tree.rename(away)
    host.client.post("/v1/resume", {})
    until(lambda: "is not a git repository" in host.status()["last_error"], "the missing repository is told")
    until(lambda: host.status()["state"] == "degraded", "the pass ends")
    repairs = host.status()["drift_repairs"]
    erase(host, "ipcache4", "web")
    until(lambda: host.status()["drift_repairs"] > repairs, "drift is repaired all the same")
    away.rename(host.tree)
    host.settle()
    host.wait_for(host.commit())


def test_a_daemon_whose_repository_is_gone_starts_and_leaves_everything(resting: DaemonHost) -> None:
    away = resting.tree.with_name("away")
    resting.tree.rename(away)
    resting.start()
    until(lambda: "is not a git repository" in resting.status()["last_error"], "the missing repository is told")
    with lossless(resting, "client", "web", PORT, _addresses(resting)):
        assert resting.status()["tables"]["attachments"] == 4
    away.rename(resting.tree)
    resting.settle()


def test_a_branch_that_was_forced_to_an_unrelated_history_is_followed(host: DaemonHost) -> None:
    """And the applied commit is nowhere any more."""
    forced = host.git("commit-tree", "-m", "anew", host.git("rev-parse", "HEAD^{tree}"))
    gone = host.git("rev-parse", "HEAD")
    with lossless(host, "client", "web", PORT):
        host.move(forced)
        host.git("reflog", "expire", "--expire=now", "--all")
        host.git("gc", "-q", "--prune=now")
        host.wait_for(forced)
    rollback = host.plumb("rollback", gone)
    assert rollback.returncode == 4
    assert f"commit {gone} is not in {host.tree}" in rollback.stderr


def test_a_daemon_that_starts_after_its_commit_was_pruned_leaves_everything_until_the_next(host: DaemonHost) -> None:
    host.stop()
    (host.tree / "cluster.yaml").unlink()
    host.git("add", "-A")
    bad = host.git("commit-tree", "-m", "bad", host.git("write-tree"))
    good = host.git("commit-tree", "-m", "good", host.git("rev-parse", "HEAD^{tree}"))
    host.git("update-ref", "refs/heads/kept", good)
    host.move(bad)
    host.git("reflog", "expire", "--expire=now", "--all")
    host.git("gc", "-q", "--prune=now")
    host.start()
    until(lambda: host.status()["state"] == "refused", "the bad commit is refused")
    with lossless(host, "client", "web", PORT, _addresses(host)):
        host.move(good)
        host.wait_for(good)


def _fill_policy(host: DaemonHost) -> None:
    maps = PinnedMaps(host.config.pin_root)
    outer, generation = maps.open("policy"), Generation(maps).current.generation
    taken, ids = outer.read()
    junk = np.zeros(outer.info.max_entries - len(taken), outer.key_dtype)
    junk["generation"], junk["subject"] = (generation - 7) % (1 << 32), np.arange(len(junk))
    with held(by_id(MAP_BY_ID, int(ids[0]), "opening a map")) as inner:
        outer.update(junk, np.full(len(junk), inner, np.uint32))


def _configured(host: DaemonHost, **settings: object) -> Finished:
    """The daemon with other settings, which are as before afterwards. It must end by itself."""
    path = host.directory / "config.yaml"
    content = path.read_text()
    path.write_text(yaml.safe_dump({**yaml.safe_load(content), **settings}))
    try:
        return host.plumb("apply" if "pin_root" in settings else "daemon")
    finally:
        path.write_text(content)


def _addresses(host: DaemonHost) -> list[str]:
    """Of `web`, for when no daemon can tell."""
    shown = host.ip("-o", "address", "show", "dev", "eth0", "scope", "global", netns=host.inside("web"))
    return [line.split()[3].partition("/")[0] for line in shown.splitlines()]


def _entered(host: DaemonHost) -> list[str]:
    return ["nsenter", f"--net={host.path}"]


def _plain(host: DaemonHost, *arguments: str) -> list[str]:
    """The command without entering the host's namespace."""
    return host.command(*arguments)[2:]


def _run(*command: str) -> Finished:
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
