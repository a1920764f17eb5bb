"""What the kernel can do is found by trying, and trying leaves nothing behind."""

from __future__ import annotations

from pathlib import Path

from reconciler.bpf import syscalls
from reconciler.datapath.features import has, missing, probe
from reconciler.errors import FeatureMissing, KernelError

from .harness import eventually


def test_what_is_needed_is_there() -> None:
    assert missing(probe()) == ()


def test_an_absent_feature_says_why_and_what_follows() -> None:
    absent = [feature for feature in probe() if not feature.present]
    assert all(feature.detail and feature.consequence for feature in absent)


def test_names_are_unique_and_each_can_be_asked_alone() -> None:
    found = probe()
    assert {feature.name: feature.present for feature in found} == {one.name: has(one.name) for one in found}


def names(next_id: int, by_id: int, at: int) -> set[str]:
    """Of every map or program that the kernel has; one that goes while we look is left out."""
    found = set()
    for number in syscalls.ids(next_id):
        try:
            descriptor = syscalls.by_id(by_id, number, "opening")
        except KernelError:
            continue
        with syscalls.held(descriptor):
            found.add(syscalls.text(syscalls.information(descriptor, bytearray(80), "reading")[at : at + 16]))
    return found


def test_probing_leaves_no_map_and_no_program_and_no_device() -> None:
    devices = set(Path("/sys/class/net").iterdir())
    probe()
    assert set(Path("/sys/class/net").iterdir()) == devices
    eventually(lambda: "probe" not in names(syscalls.PROGRAM_NEXT_ID, syscalls.PROGRAM_BY_ID, 64))
    eventually(lambda: "probe" not in names(syscalls.MAP_NEXT_ID, syscalls.MAP_BY_ID, 24))


def test_an_unsupported_errno_becomes_a_missing_feature() -> None:
    error = syscalls.refusal(524, "trying")
    assert isinstance(error, FeatureMissing)
    assert (str(error), error.errno) == ("trying: not supported", 524)
