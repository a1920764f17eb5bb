"""Documents say what is there: generated pages are fresh, lists are whole, links lead somewhere, commands exist."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import click
import pytest
import yaml

from reconciler import config, errors
from reconciler.cli.main import root
from reconciler.host.tables import HostTables
from reconciler.observe.flow import Reason
from reconciler.source import unenforced
from scripts import manifest_reference

CHECKOUT = Path(__file__).parents[2]
DOCS = CHECKOUT / "docs"
PAGES = sorted([*CHECKOUT.glob("*.md"), *DOCS.glob("*.md"), *CHECKOUT.glob("examples/*/*.md")])

_LINK = re.compile(r"\]\(([^)#\s]*)(?:#([^)\s]*))?\)")
_COMMAND = re.compile(r"\bplumb ([a-z]+)")


def anchors(page: Path) -> set[str]:
    """Of its headings, as GitHub makes them."""
    titles = re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^a-z0-9 -]", "", title.lower()).replace(" ", "-") for title in titles}


def first_column(page: str, heading: str) -> set[str]:
    """The words in backquotes in the first column of the table below a heading."""
    section = (DOCS / page).read_text().partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    cells = [line.split("|")[1] for line in section.splitlines() if line.startswith("|")]
    return {word for cell in cells for word in re.findall(r"`([^`]+)`", cell)}


def test_the_manifest_reference_is_what_the_schemas_say() -> None:
    assert (DOCS / "manifests.md").read_text() == manifest_reference.reference(), "python scripts/manifest_reference.py"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(CHECKOUT)))
def test_every_link_leads_somewhere(page: Path) -> None:
    for path, anchor in _LINK.findall(page.read_text()):
        if path.startswith(("http://", "https://")):
            continue
        target = page.parent / path if path else page
        assert target.exists(), path
        assert not anchor or anchor in anchors(target), f"{path}#{anchor}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(CHECKOUT)))
def test_every_command_that_a_page_names_exists(page: Path) -> None:
    code = re.findall(r"```.*?```|`[^`]+`", page.read_text(), re.DOTALL)
    named = {name for part in code for name in _COMMAND.findall(part)}
    assert named <= set(root.list_commands(click.Context(root)))


def test_every_reason_of_the_datapath_is_explained() -> None:
    assert first_column("datapath.md", "Events and reasons") == {reason.word for reason in Reason}


def test_every_table_of_a_host_is_explained(tmp_path: Path) -> None:
    tables = HostTables(config.make("alpha", tmp_path, pin_root=tmp_path))
    assert first_column("concepts.md", "Rows and tables") == set(tables.by_name)


def test_every_field_that_is_refused_is_listed() -> None:
    listed = (DOCS / "policy.md").read_text().partition("## Refused: valid")[2].partition("\n## ")[0]
    words = set(re.findall(r"[A-Za-z0-9]+", listed))
    assert {path.rpartition(".")[2] for path in unenforced._FIELDS} <= words


def test_every_exit_code_is_listed() -> None:
    page = (DOCS / "operations.md").read_text().partition("## Exit codes")[2].partition("\n## ")[0]
    classes = [one for one in vars(errors).values() if isinstance(one, type) and issubclass(one, errors.PlumbError)]
    assert set(map(int, re.findall(r"^\| (\d+) \|", page, re.MULTILINE))) == {0} | {one.exit_code for one in classes}


def test_every_field_of_the_configuration_is_listed_with_its_default() -> None:
    listed = first_column("operations.md", "Configuration")
    assert listed == {field.name for field in dataclasses.fields(config.Config)} - {"path"}


def test_every_capability_of_the_unit_is_explained() -> None:
    role = yaml.safe_load((CHECKOUT / "playbooks/roles/plumb/vars/main.yml").read_text())
    wanted = {f"CAP_{name.upper()}" for name in role["plumb_capabilities"]}
    assert first_column("operations.md", "What the daemon may do") == wanted
