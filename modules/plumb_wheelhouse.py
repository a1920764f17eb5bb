#!/usr/bin/python
"""Builds what a host needs to run Plumbline without a compiler and without an index: one archive, by content."""

from __future__ import annotations

import hashlib
import importlib.metadata
import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tempfile
import tomllib
from collections.abc import Iterator
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule

DOCUMENTATION = r"""
module: plumb_wheelhouse
short_description: Build an archive of Plumbline and everything it imports
description:
  - Builds the wheel of a checkout, with the built BPF objects and the schemas in it, and gathers the wheels of its
    dependencies in the versions that the controller's own interpreter has, and that of pip.
  - The archive is named by a digest of what goes into it; if it is there already nothing is done.
  - Runs on the controller with the interpreter of Ansible. Hosts need the same minor version of Python and the same
    architecture.
author: Plumbline
options:
  checkout:
    description: The checkout to build; C(make setup) has built the BPF objects in it.
    type: path
    required: true
  directory:
    description: Where archives, and the wheels of dependencies, are kept. All but the newest three are removed.
    type: path
    required: true
attributes:
  check_mode:
    description: Builds nothing and tells the digest.
    support: full
  diff_mode:
    description: There is nothing to show of an archive.
    support: none
"""

EXAMPLES = r"""
- name: Build what hosts need, once
  plumb_wheelhouse:
    checkout: "{{ playbook_dir }}/.."
    directory: "{{ playbook_dir }}/../build/release"
  delegate_to: localhost
  run_once: true
"""

RETURN = r"""
archive:
  description: Path of the archive.
  returned: always
  type: str
digest:
  description: Digest of what goes into it, 16 hexadecimal digits.
  returned: always
  type: str
version:
  description: Version of Plumbline.
  returned: always
  type: str
"""

_KEPT = 3
_SOURCES = ("pyproject.toml", "README.md", "LICENSE", "bpf/LICENSE.GPL-2.0")
_FOLDERS = ("reconciler", "schemas", "examples", "build/bpf")


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "checkout": {"type": "path", "required": True},
            "directory": {"type": "path", "required": True},
        },
        supports_check_mode=True,
    )
    checkout, directory = Path(module.params["checkout"]).resolve(), Path(module.params["directory"]).resolve()
    if not any((checkout / "build" / "bpf").glob("*.o")):
        module.fail_json(msg=f"{checkout / 'build' / 'bpf'}: no built BPF objects; build them: make setup")
    pins = _pins(checkout)
    digest = _digest(checkout, pins)
    archive = directory / f"{digest}.tar"
    missing = not archive.exists()
    if missing and not module.check_mode:
        try:
            _build(checkout, pins, archive)
        except subprocess.CalledProcessError as error:
            module.fail_json(msg=f"the release cannot be built: {_complaint(error.stderr)}")
        _prune(directory)
    module.exit_json(changed=missing, archive=str(archive), digest=digest, version=_version(checkout))


def _complaint(said: str) -> str:
    """pip's own error lines, without what it tried before."""
    errors = [line for line in said.splitlines() if line.startswith("ERROR:")]
    return "\n".join(errors) or said


def _digest(checkout: Path, pins: list[str]) -> str:
    """Of every file that goes into the wheel, of the versions of the dependencies, of what they are built for."""
    whole = hashlib.sha256("\0".join([*pins, sysconfig.get_platform(), sys.implementation.cache_tag or ""]).encode())
    for path in sorted(_files(checkout)):
        content = hashlib.sha256((checkout / path).read_bytes()).hexdigest()
        whole.update(f"{path}\0{content}\n".encode())
    return whole.hexdigest()[:16]


def _files(checkout: Path) -> Iterator[str]:
    for name in _SOURCES:
        if (checkout / name).exists():
            yield name
    for folder in _FOLDERS:
        for path in (checkout / folder).rglob("*"):
            if path.is_file() and path.suffix not in (".pyc", ".d") and "_shipped" not in path.parts:
                yield str(path.relative_to(checkout))


def _pins(checkout: Path) -> list[str]:
    """`name==version` of every dependency, its own dependencies too, as this interpreter has them."""
    from packaging.requirements import Requirement

    project = tomllib.loads((checkout / "pyproject.toml").read_text())["project"]
    waiting, found = [Requirement(text) for text in project["dependencies"]], {}
    while waiting:
        requirement = waiting.pop()
        applies = requirement.marker is None or requirement.marker.evaluate({"extra": ""})
        if not applies or requirement.name.lower() in found:
            continue
        distribution = importlib.metadata.distribution(requirement.name)
        found[requirement.name.lower()] = f"{distribution.metadata['Name']}=={distribution.version}"
        waiting += [Requirement(text) for text in distribution.requires or ()]
    return sorted(found.values())


def _build(checkout: Path, pins: list[str], archive: Path) -> None:
    """The archive appears whole or not at all. Raises CalledProcessError."""
    archive.parent.mkdir(parents=True, exist_ok=True)
    dependencies = _dependencies(pins, archive.parent)
    with tempfile.TemporaryDirectory(dir=archive.parent) as folder:
        wheels = Path(folder) / "wheels"
        shutil.copytree(dependencies, wheels, copy_function=os.link)
        _pip_wheel(wheels, "--no-build-isolation", str(checkout))
        (Path(folder) / "requirements.txt").write_text("".join(sorted(_locked(wheels))))
        partial = Path(folder) / "archive.tar"
        with tarfile.open(partial, "w") as target:
            target.add(wheels, "wheels")
            target.add(Path(folder) / "requirements.txt", "requirements.txt")
        partial.rename(archive)


def _dependencies(pins: list[str], directory: Path) -> Path:
    """A folder with their wheels; only other versions need the index again."""
    wheels = directory / f"wheels-{hashlib.sha256(' '.join(pins).encode()).hexdigest()[:16]}"
    if not wheels.exists():
        with tempfile.TemporaryDirectory(dir=directory) as folder:
            _pip_wheel(Path(folder) / "wheels", *pins, "pip")
            (Path(folder) / "wheels").rename(wheels)
    return wheels


def _pip_wheel(target: Path, *what: str) -> None:
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "wheel", "--quiet", "--no-deps"]
    subprocess.run(
        [*command, "--wheel-dir", str(target), *what],
        check=True,
        capture_output=True,
        text=True,
        env={**os.environ, "SOURCE_DATE_EPOCH": "1577836800"},
    )


def _locked(wheels: Path) -> Iterator[str]:
    """A line of requirements for each wheel: exactly this version with exactly this content."""
    for wheel in wheels.glob("*.whl"):
        name, version = wheel.name.split("-")[:2]
        if name != "pip":
            yield f"{name}=={version} --hash=sha256:{hashlib.sha256(wheel.read_bytes()).hexdigest()}\n"


def _prune(directory: Path) -> None:
    for pattern in ("*.tar", "wheels-*"):
        newest = sorted(directory.glob(pattern), key=lambda path: path.stat().st_mtime, reverse=True)
        for path in newest[_KEPT:]:
            shutil.rmtree(path) if path.is_dir() else path.unlink()


def _version(checkout: Path) -> str:
    text = (checkout / "reconciler" / "__init__.py").read_text()
    return text.split('__version__ = "', 1)[1].split('"', 1)[0]


if __name__ == "__main__":
    main()
