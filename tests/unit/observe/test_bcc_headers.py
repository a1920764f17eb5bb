"""The tree of headers that bcc is given."""

from pathlib import Path

import pytest

from reconciler.errors import FeatureMissing
from reconciler.observe.bcc_headers import header_tree


def test_the_tree_is_built_once(tmp_path: Path) -> None:
    tree = header_tree(tmp_path)
    built = tree.stat().st_mtime_ns
    assert header_tree(tmp_path) == tree
    assert tree.stat().st_mtime_ns == built
    assert [path.name for path in tmp_path.iterdir()] == [tree.name]


def test_the_tree_holds_what_bcc_includes(tmp_path: Path) -> None:
    include = header_tree(tmp_path) / "include"
    assert "typedef __u64 u64;" in (include / "linux" / "kconfig.h").read_text()
    assert "PAGE_SIZE" in (include / "asm" / "page.h").read_text()
    assert (include / "uapi" / "linux" / "types.h").exists()
    assert (include / "uapi" / "linux" / "bpf.h").read_text() == ""


def test_missing_headers_are_a_missing_feature_with_the_package_to_install(tmp_path: Path) -> None:
    with pytest.raises(FeatureMissing) as caught:
        header_tree(tmp_path / "cache", include=tmp_path)
    assert caught.value.remedy == "apt-get install linux-libc-dev"
