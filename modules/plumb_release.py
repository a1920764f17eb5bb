#!/usr/bin/python
"""Installs the archive that plumb_wheelhouse built, beside what runs, and switches to it in one step."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule

DOCUMENTATION = r"""
module: plumb_release
short_description: Install a release of Plumbline on a host
description:
  - Makes a virtual environment named by the digest of the archive and points the symbolic link I(prefix) at it, so that
    what runs is either the old release or the new one, whole. An interrupted installation is begun anew.
  - Needs neither a compiler nor an index, nor Debian's python3-venv; the archive brings pip. The environment sees the
    system's packages, because the BPF Compiler Collection's Python module comes from there.
  - The release before this one stays, older ones are removed.
author: Plumbline
options:
  state:
    description:
      - C(present) installs.
      - C(gathered) only asks, for everything that an installation needs to know in one task.
    type: str
    default: present
    choices: [present, gathered]
  prefix:
    description: Symbolic link to the release in use. Releases stand beside it as C(<prefix>-<digest>).
    type: path
    required: true
  digest:
    description: Digest of the release, as M(plumb_wheelhouse) returns it. Needed for C(present).
    type: str
  archive:
    description: Path of the archive on the host. Needed for C(present).
    type: path
  command:
    description: Symbolic link to the command, or empty for none.
    type: str
    default: ""
  packages:
    description: Debian packages to ask for.
    type: list
    elements: str
    default: []
  paths:
    description: Files and folders to ask for.
    type: list
    elements: path
    default: []
attributes:
  check_mode:
    description: Tells which release would be installed.
    support: full
  diff_mode:
    description: Shows the digests of the two releases.
    support: full
"""

EXAMPLES = r"""
- name: Ask what is there
  plumb_release:
    state: gathered
    prefix: /opt/plumb
    packages: [git, libbpf1]
    paths: [/etc/plumb]
  register: there

- name: Install the release
  plumb_release:
    prefix: /opt/plumb
    digest: "{{ plumb_release.digest }}"
    archive: /var/lib/plumb/release.tar
    command: /usr/local/bin/plumb
"""

RETURN = r"""
before:
  description: Digest of the release that was in use, empty if none was.
  returned: always
  type: str
after:
  description: Digest of the release that is in use.
  returned: for the state present
  type: str
missing:
  description: Which of I(packages) and I(paths) are not there.
  returned: for the state gathered
  type: dict
  sample: {packages: [libbpf1], paths: []}
"""

_MARK = "installed"  # written last: without it a release is not whole


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "state": {"type": "str", "default": "present", "choices": ["present", "gathered"]},
            "prefix": {"type": "path", "required": True},
            "digest": {"type": "str"},
            "archive": {"type": "path"},
            "command": {"type": "str", "default": ""},
            "packages": {"type": "list", "elements": "str", "default": []},
            "paths": {"type": "list", "elements": "path", "default": []},
        },
        required_if=[("state", "present", ("digest", "archive"))],
        supports_check_mode=True,
    )
    prefix, digest = Path(module.params["prefix"]), module.params["digest"]
    if module.params["state"] == "gathered":
        module.exit_json(changed=False, before=_in_use(prefix, module.params["command"]), missing=_missing(module))
    if prefix.exists() and not prefix.is_symlink():
        module.fail_json(msg=f"{prefix} exists and is no symbolic link; move it away, or set another prefix")
    try:
        module.exit_json(**_converge(prefix, digest, module))
    except subprocess.CalledProcessError as error:
        module.fail_json(msg=f"{' '.join(error.cmd)}: {error.stderr.strip()}{_reason()}")
    except (OSError, tarfile.TarError) as error:
        module.fail_json(msg=f"{prefix}: the release cannot be installed: {error}")


def _converge(prefix: Path, digest: str, module: AnsibleModule) -> dict[str, object]:
    command = module.params["command"]
    before = _in_use(prefix, command)
    changed = before != digest
    if changed and not module.check_mode:
        with _alone(prefix):
            _install(_release(prefix, digest), Path(module.params["archive"]))
            keep = {digest, os.readlink(prefix).rpartition("-")[2] if prefix.is_symlink() else ""}
            _point(prefix, f"{prefix.name}-{digest}")
            if command:
                _point(Path(command), str(prefix / "bin" / "plumb"))
            _prune(prefix, keep)
    diff = {"before": f"release: {before or 'none'}\n", "after": f"release: {digest}\n"}
    return {"changed": changed, "before": before, "after": digest, "diff": diff}


def _release(prefix: Path, digest: str) -> Path:
    return prefix.with_name(f"{prefix.name}-{digest}")


def _in_use(prefix: Path, command: str) -> str:
    """Digest of the release in use, '' if there is none, it is not whole, or the command does not lead to it."""
    reached = not command or (os.path.islink(command) and os.readlink(command) == str(prefix / "bin" / "plumb"))
    if not reached or not (prefix / _MARK).exists():
        return ""
    return os.readlink(prefix).rpartition("-")[2]


def _missing(module: AnsibleModule) -> dict[str, list[str]]:
    query = ["dpkg-query", "--show", "--showformat", "${Package} ${db:Status-Status}\n", *module.params["packages"]]
    known = subprocess.run(query, capture_output=True, text=True).stdout if module.params["packages"] else ""
    installed = {line.split()[0] for line in known.splitlines() if line.endswith(" installed")}
    return {
        "packages": [name for name in module.params["packages"] if name not in installed],
        "paths": [path for path in module.params["paths"] if not os.path.exists(path)],
    }


@contextlib.contextmanager
def _alone(prefix: Path) -> Iterator[None]:
    """Hosts of a lab share one file system: the first one installs, the others wait for it."""
    parent = os.open(prefix.parent, os.O_RDONLY)
    try:
        fcntl.flock(parent, fcntl.LOCK_EX)
        yield
    finally:
        os.close(parent)


def _install(release: Path, archive: Path) -> None:
    if (release / _MARK).exists():
        return
    shutil.rmtree(release, ignore_errors=True)
    with tempfile.TemporaryDirectory() as folder:
        with tarfile.open(archive) as source:
            source.extractall(folder)
        (pip,) = Path(folder, "wheels").glob("pip-*.whl")
        _run([sys.executable, "-m", "venv", "--system-site-packages", "--without-pip", str(release)])
        install = ["-m", "pip", "install", "--quiet", "--no-index", "--no-compile", "--require-hashes", "--no-deps"]
        sources = ["--find-links", f"{folder}/wheels", "--requirement", f"{folder}/requirements.txt"]
        interpreter = str(release / "bin" / "python")
        _run([interpreter, *install, *sources], PYTHONPATH=str(pip))
        _run([interpreter, "-m", "compileall", "-q", "-j", "0", str(release / "lib")])
    (release / _MARK).touch()


def _run(command: list[str], **environment: str) -> None:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("PIP_")}
    environment = {**clean, "PIP_CONFIG_FILE": os.devnull, "PIP_DISABLE_PIP_VERSION_CHECK": "1", **environment}
    subprocess.run(command, check=True, capture_output=True, text=True, env=environment)


def _point(link: Path, target: str) -> None:
    """By renaming, so that there is no moment without the link."""
    link.parent.mkdir(parents=True, exist_ok=True)
    fresh = link.with_name(f".{link.name}.new")
    fresh.unlink(missing_ok=True)
    fresh.symlink_to(target)
    fresh.replace(link)


def _prune(prefix: Path, keep: set[str]) -> None:
    kept = {_release(prefix, digest) for digest in keep}
    for release in prefix.parent.glob(f"{prefix.name}-{'[0-9a-f]' * 16}"):
        if release not in kept:
            shutil.rmtree(release, ignore_errors=True)


def _reason() -> str:
    version = ".".join(map(str, sys.version_info[:2]))
    return f"\nThis host has Python {version} on {os.uname().machine}; the archive must be built by a controller alike."


if __name__ == "__main__":
    main()
