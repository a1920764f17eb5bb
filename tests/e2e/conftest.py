"""Sites for end-to-end tests; each is taken down, and must then have left nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.e2e.site import Site, make_site


@pytest.fixture
def new_site(tmp_path: Path) -> Iterator[Callable[[], Site]]:
    """Makes sites: repositories whose labs are not up yet."""
    made: list[Site] = []

    def make() -> Site:
        made.append(make_site(tmp_path))
        return made[-1]

    yield make
    for site in made:
        site.clean_up()
        assert site.left_over() == []


@pytest.fixture
def site(new_site: Callable[[], Site]) -> Site:
    """A site whose lab is not up yet."""
    return new_site()


@pytest.fixture
def lab(site: Site) -> Site:
    """A site whose lab is up and converged."""
    site.up()
    return site
