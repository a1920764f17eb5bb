"""Hosts for Ansible, made of namespaces: each with its workloads, reached over a real sshd or over its namespace.

Everything is below one temporary folder but the namespaces (`pt-...`) and the pins, and all of it goes with the fleet.
The release is built from a copy of the checkout, so that a file that is edited meanwhile changes nothing.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from reconciler.host.health_netns import health_netns
from reconciler.kernel import netns
from reconciler.lab.processes import inside_any

CHECKOUT = Path(__file__).resolve().parents[2]
NETNS = Path("/run/netns")
BPF = Path("/sys/fs/bpf")
PRIVILEGES = Path("/run/sshd")  # sshd insists on it
DEADLINE_S = 20.0

_FOLDERS = ("reconciler", "schemas", "examples", "build/bpf")
_FILES = ("bpf/LICENSE.GPL-2.0", "pyproject.toml", "README.md", "LICENSE")

_NUMBERS = itertools.count()

PROBED = """
apiVersion: plumbline/v1
kind: Cluster
metadata: {name: demo}
spec:
  probes: [{name: cannot hold, from: default/alpha-client, to: 192.0.2.1, port: 9, timeout: 0.2}]
"""
POLICY = """
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: web, namespace: default}
spec:
  podSelector: {matchLabels: {app: web}}
  ingress:
    - from: [{podSelector: {matchLabels: {app: client}}}]
      ports: [{port: 80, protocol: TCP}]
"""


def copy_of_checkout(target: Path) -> Path:
    for name in _FOLDERS:
        shutil.copytree(CHECKOUT / name, target / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in _FILES:
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(CHECKOUT / name, target / name)
    return target


def built(checkout: Path) -> Path:
    """The checkout, its release built as the role does it."""
    arguments = f"checkout={checkout} directory={checkout / 'build' / 'release'}"
    interpreter = f"ansible_python_interpreter={sys.executable}"
    command = [Path(sys.executable).with_name("ansible"), "-i", "localhost,", "-c", "local", "-e", interpreter]
    run(*command, "-m", "plumb_wheelhouse", "-a", arguments, "localhost", cwd=CHECKOUT)
    return checkout


def wait_for(what: Callable[[], bool], said: str) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not what():
        assert time.monotonic() < deadline, said
        time.sleep(0.02)


def run(*command: str | Path, cwd: Path | None = None) -> str:
    done = subprocess.run([str(one) for one in command], cwd=cwd, capture_output=True, text=True)
    assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
    return done.stdout.strip()


@dataclass(frozen=True, slots=True)
class Played:
    """What ansible-playbook said. `recap`: host -> counters."""

    code: int
    output: str
    recap: dict[str, dict[str, int]]

    def changed(self) -> dict[str, int]:
        return {host: counters["changed"] for host, counters in self.recap.items()}


def recap(output: str) -> dict[str, dict[str, int]]:
    _, _, lines = output.partition("PLAY RECAP")
    found = {}
    for line in lines.splitlines()[1:]:
        host, _, counters = line.partition(" : ")
        pairs = [one.split("=") for one in counters.split()]
        if pairs and all(len(pair) == 2 for pair in pairs):
            found[host.strip()] = {name: int(value) for name, value in pairs}
    return found


@dataclass
class Fleet:
    """`names` are the nodes. `ssh`: reached over a real sshd, from a namespace that is the controller's."""

    folder: Path
    checkout: Path
    prefix: Path
    names: tuple[str, ...]
    ssh: bool
    tag: str = field(default_factory=lambda: f"pt-a{os.getpid()}-{next(_NUMBERS)}")
    servers: list[subprocess.Popen[bytes]] = field(default_factory=list)
    made_privileges: bool = False

    # What there is

    def host(self, name: str) -> str:
        return f"{self.tag}-{name}"

    def workload(self, name: str, what: str) -> str:
        return f"{self.tag}-{name}-{what}"

    def namespaces(self) -> list[str]:
        of_hosts = [one for name in self.names for one in (self.host(name), *self.workloads(name))]
        return [*of_hosts, f"{self.tag}-ctl"]

    def workloads(self, name: str) -> list[str]:
        return [self.workload(name, what) for what in ("web", "client")]

    def home(self, name: str) -> Path:
        return self.folder / name

    def pins(self, name: str) -> Path:
        return BPF / self.tag / name

    @property
    def repository(self) -> Path:
        return self.folder / "policies"

    # Up and down

    def up(self) -> None:
        for name in self.namespaces():
            netns.create(str(NETNS / name))
            run("ip", "-n", name, "link", "set", "lo", "up")
        if self.ssh:
            self._start_servers()
        self.repository.mkdir()
        self.git("init", "-q", "-b", "main")
        self.write("cluster.yaml", {"apiVersion": "plumbline/v1", "kind": "Cluster", "metadata": {"name": "demo"}})
        self.write("namespace.yaml", {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "default"}})
        for index, name in enumerate(self.names):
            self.write(f"nodes/{name}.yaml", self._node(index, name))
            for what in ("web", "client"):
                self.write(f"workloads/{name}-{what}.yaml", self._workload(name, what))
        self.commit("hosts and workloads")

    def down(self) -> None:
        for server in self.servers:
            server.terminate()
            server.wait(DEADLINE_S)
        paths = [str(path) for name in self.namespaces() if (path := NETNS / name).exists()]
        wait_for(lambda: not _signalled(paths), "processes stay in the namespaces")
        for path in (*paths, *(health_netns(self.pins(name)) for name in self.names)):
            netns.remove(path)
        shutil.rmtree(BPF / self.tag, ignore_errors=True)
        if self.made_privileges:
            PRIVILEGES.rmdir()

    def _start_servers(self) -> None:
        if not PRIVILEGES.exists():
            PRIVILEGES.mkdir(mode=0o755)
            self.made_privileges = True
        for key in ("host_key", "user_key"):
            run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", self.folder / key)
        public = (self.folder / "host_key.pub").read_text()
        (self.folder / "known_hosts").write_text(
            "".join(f"{self._address(i)} {public}" for i in range(len(self.names)))
        )
        for index, name in enumerate(self.names):
            self._join(index, self.host(name))
            self.servers.append(self._server(index, self.host(name)))

    def _join(self, index: int, namespace: str) -> None:
        controller = f"{self.tag}-ctl"
        run(
            "ip",
            "-n",
            controller,
            "link",
            "add",
            f"h{index}",
            "type",
            "veth",
            "peer",
            "name",
            "up0",
            "netns",
            namespace,
        )
        for where, device, address in ((controller, f"h{index}", 1), (namespace, "up0", 2)):
            run("ip", "-n", where, "address", "add", f"10.99.{index}.{address}/30", "dev", device)
            run("ip", "-n", where, "link", "set", device, "up")

    def _address(self, index: int) -> str:
        return f"10.99.{index}.2"

    def _server(self, index: int, namespace: str) -> subprocess.Popen[bytes]:
        options = {
            "ListenAddress": self._address(index),
            "HostKey": self.folder / "host_key",
            "AuthorizedKeysFile": self.folder / "user_key.pub",
            "StrictModes": "no",
            "UsePAM": "no",
            "PidFile": "none",
            "Subsystem": "sftp internal-sftp",
        }
        command = ["nsenter", f"--net={NETNS / namespace}", "/usr/sbin/sshd", "-D", "-f", "/dev/null"]
        with (self.folder / f"sshd-{index}.log").open("wb") as log:
            settings = [f"-o{name}={value}" for name, value in options.items()]
            server = subprocess.Popen([*command, "-e", *settings], stdout=log, stderr=log)
        listening = ["ip", "netns", "exec", namespace, "ss", "-Hltn", "sport = :22"]
        wait_for(lambda: "10.99." in run(*listening), f"sshd does not listen in {namespace}")
        return server

    # The policy repository

    def _node(self, index: int, name: str) -> dict[str, Any]:
        home = self.home(name)
        reached: dict[str, Any] = {"connection": "netns", "host": self.host(name)}
        if self.ssh:
            options = f"-o UserKnownHostsFile={self.folder / 'known_hosts'} -o ControlPath={self.folder}/c-%C"
            key = str(self.folder / "user_key")
            reached = {"host": self._address(index), "user": "root", "ansible_ssh_private_key_file": key}
            reached["ansible_ssh_common_args"] = options
        variables = {
            "plumb_service": "process",
            "plumb_prefix": str(self.prefix),
            "plumb_command": "",
            "plumb_config_path": str(home / "config.yaml"),
            "plumb_host_repository": str(home / "policy.git"),
            "plumb_pidfile": str(home / "daemon.pid"),
            "plumb_log": str(home / "daemon.log"),
            "plumb_settings": {
                "state_directory": str(home / "state"),
                "run_directory": str(home / "run"),
                "pin_root": str(self.pins(name)),
            },
        }
        spec = {"cidrs": [f"10.44.{index}.0/24", f"fd44:{index}::/112"], "ansible": {**reached, **variables}}
        return {"apiVersion": "plumbline/v1", "kind": "Node", "metadata": {"name": name}, "spec": spec}

    def _workload(self, name: str, what: str) -> dict[str, Any]:
        metadata = {"name": f"{name}-{what}", "namespace": "default", "labels": {"app": what}}
        spec = {"node": name, "netns": self.workload(name, what)}
        return {"apiVersion": "plumbline/v1", "kind": "Workload", "metadata": metadata, "spec": spec}

    def git(self, *arguments: str) -> str:
        return run("git", "-c", "user.name=t", "-c", "user.email=t@example.org", "-C", self.repository, *arguments)

    def write(self, path: str, content: dict[str, Any] | str) -> None:
        target = self.repository / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(content if isinstance(content, str) else yaml.safe_dump(content))

    def commit(self, message: str) -> str:
        self.git("add", ".")
        self.git("commit", "-q", "-m", message)
        return self.git("rev-parse", "HEAD")

    # Ansible

    def play(self, *arguments: str | Path) -> Played:
        """site.yml."""
        extra = ["-e", f"plumb_checkout={self.checkout}"]
        done = self._ansible("ansible-playbook", CHECKOUT / "playbooks" / "site.yml", *extra, *arguments)
        output = done.stdout + done.stderr
        return Played(done.returncode, output, recap(output))

    def module(self, name: str, module: str, *flags: str, **arguments: Any) -> dict[str, Any]:
        """What one module says on one host; its interpreter is this one, with the checkout on its path."""
        interpreter = ["-e", f"ansible_python_interpreter={sys.executable}"]
        content = json.dumps({"config_file": str(self.home(name) / "config.yaml"), **arguments})
        own = {"PYTHONPATH": str(CHECKOUT), "ANSIBLE_CALLBACK_RESULT_FORMAT": "json"}
        done = self._ansible("ansible", name, *interpreter, "-m", module, "-a", content, *flags, **own)
        head, arrow, result = done.stdout.partition(" => ")
        assert arrow, done.stdout + done.stderr
        return {**json.JSONDecoder().raw_decode(result)[0], "failed": "| FAILED" in head}

    def _ansible(self, command: str, *arguments: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
        """In the controller's namespace, with the checkout's ansible.cfg."""
        clean = {name: value for name, value in os.environ.items() if not name.startswith(("ANSIBLE_", "PLUMB_"))}
        own = {
            "PLUMB_REPOSITORY": str(self.repository),
            "ANSIBLE_CONFIG": str(CHECKOUT / "ansible.cfg"),
            "ANSIBLE_LOCAL_TEMP": str(self.folder / "local"),
            "ANSIBLE_REMOTE_TEMP": str(self.folder / "remote"),
            "ANSIBLE_NOCOLOR": "1",
            **environment,
        }
        entered = ["nsenter", f"--net={NETNS / f'{self.tag}-ctl'}", Path(sys.executable).with_name(command)]
        whole = [str(one) for one in (*entered, *arguments)]
        return subprocess.run(whole, cwd=self.folder, capture_output=True, text=True, env={**clean, **own})

    def plumb(self, name: str, *arguments: str) -> str:
        """The command as it is installed on the host."""
        command = [self.prefix / "bin" / "plumb", "--config", self.home(name) / "config.yaml"]
        return run("nsenter", f"--net={NETNS / self.host(name)}", *command, *arguments)

    def configure(self, name: str) -> None:
        """The configuration of a host without a release: it reads the fleet's own repository."""
        home = self.home(name)
        home.mkdir(exist_ok=True)
        folders = {"state_directory": home / "state", "run_directory": home / "run", "pin_root": self.pins(name)}
        content = {"node": name, "repository": str(self.repository), **{key: str(one) for key, one in folders.items()}}
        (home / "config.yaml").write_text(yaml.safe_dump(content))

    def follow(self, name: str) -> None:
        """A daemon from this checkout, until the fleet goes."""
        home = self.home(name)
        command = ["nsenter", f"--net={NETNS / self.host(name)}", sys.executable, "-m", "reconciler.cli"]
        arguments = ["--config", str(home / "config.yaml"), "daemon"]
        with (home / "daemon.log").open("wb") as log:
            daemon = subprocess.Popen([*command, *arguments], cwd=CHECKOUT, stdout=log, stderr=log)
        self.servers.append(daemon)
        wait_for((home / "run" / "plumb.sock").exists, f"the daemon of {name} does not answer")

    def snapshot(self) -> dict[str, object]:
        """What a check must leave as it is: files and pins of the hosts, devices and routes of all namespaces."""
        files = {str(path): _content(path) for name in self.names for path in _files(self.home(name))}
        pins = sorted(str(path) for path in (BPF / self.tag).rglob("*")) if (BPF / self.tag).exists() else []
        kernel = [run("ip", "-n", name, what, "show") for name in self.namespaces() for what in ("link", "route")]
        return {
            "files": files,
            "pins": pins,
            "kernel": kernel,
            "releases": sorted(map(str, self.prefix.parent.glob("plumb*"))),
        }


def _files(folder: Path) -> Iterable[Path]:
    """Without the daemon's log and its cache of parsed files, which says nothing about the host."""
    if folder.exists():
        yield from (path for path in folder.rglob("*") if not {"daemon.log", "manifests"} & set(path.parts))


def _content(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""


def _signalled(namespaces: list[str]) -> bool:
    """Ends whatever still runs in these namespaces, which are all ours; whether there was something."""
    running = inside_any(namespaces)
    for pid in running:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    return bool(running)
