"""Files that are refused, as data: each `*.faults` lists what its manifest gets, `line:column: message`."""

from __future__ import annotations

from pathlib import Path

import pytest

from reconciler.errors import ManifestError
from reconciler.model.cluster import Workload
from reconciler.source import manifests
from reconciler.source.loading import load_directory

CASES = Path(__file__).parents[2] / "cases" / "manifests"
REFUSED = sorted(path for path in (CASES / "refused").iterdir() if path.suffix != ".faults")
TREES = sorted(path for path in (CASES / "trees").iterdir() if path.is_dir())


@pytest.mark.parametrize("path", REFUSED, ids=lambda path: path.name)
def test_a_file_gets_exactly_these_faults(path: Path) -> None:
    found = manifests.read(path.read_bytes(), is_json=path.suffix == ".json").faults
    lines = [f"{fault.line}:{fault.column}: {fault.message}" for fault in sorted(found)]
    assert lines == path.with_name(f"{path.name}.faults").read_text().splitlines()


@pytest.mark.parametrize("tree", TREES, ids=lambda path: path.name)
def test_a_tree_gets_exactly_these_faults(tree: Path) -> None:
    try:
        load_directory(tree)
        said = ""
    except ManifestError as e:
        said = str(e)
    assert said.splitlines() == tree.with_name(f"{tree.name}.faults").read_text().splitlines()


def test_a_faulty_document_does_not_hide_its_neighbours() -> None:
    found = manifests.read(
        b"kind: Nope\napiVersion: v1\n---\napiVersion: v1\nkind: Namespace\nmetadata: {name: shop}\n"
    )
    assert [str(document.identity) for document in found.documents] == ["Namespace shop"]
    assert len(found.faults) == 1


def test_a_fault_in_an_anchor_is_told_once() -> None:
    text = (
        b"apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: web}\n"
        b"spec:\n  podSelector: &x {matchLabels: {-a: x}}\n  ingress: [{from: [{podSelector: *x}]}]\n"
    )
    assert [(fault.line, fault.column) for fault in manifests.read(text).faults] == [(5, 34)]


def test_what_alike_documents_share_is_in_memory_once() -> None:
    text = "apiVersion: plumbline/v1\nkind: Workload\nmetadata: {name: %s}\nspec: {node: alpha, netns: w}\n"
    one, other = (manifests.read((text % name).encode()).documents[0] for name in ("first", "other"))
    assert isinstance(one.content, Workload)
    assert isinstance(other.content, Workload)
    assert one.place is other.place
    assert one.places is other.places
    assert one.content.node is other.content.node
