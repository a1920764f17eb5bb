"""Which backends are checked, and who is unhealthy by the rows that are there."""

from __future__ import annotations

from ipaddress import ip_address

from reconciler.host.service_checks import checks, unhealthy_by_rows
from reconciler.model.facts import ServiceFacts
from reconciler.model.service import HealthCheck, SliceEndpoint
from tests.unit.compile.service_worlds import World, service, slice_of

HOW = HealthCheck()
DRAINING = SliceEndpoint((ip_address("203.0.113.2"),), ready=False, serving=True)
SLICES = [slice_of("web", "203.0.113.1", DRAINING), slice_of("web", "203.0.113.3", name="idle", weight=0)]
ONE = ip_address("203.0.113.1"), 9000, 6


def test_backends_that_could_get_new_flows_are_checked() -> None:
    found = checks(World([service(health=HOW)], slices=SLICES).rows.given)
    assert list(found) == [("default/web", ONE, HOW)]


def test_services_without_a_check_are_left_alone() -> None:
    assert list(checks(World([service()], slices=SLICES).rows.given)) == []


def test_rows_tell_who_was_unhealthy() -> None:
    said = ServiceFacts(unhealthy={"default/web": frozenset({ONE})})
    rows = World([service(health=HOW)], slices=SLICES, said=said).rows
    assert unhealthy_by_rows(rows.given, rows.backends) == {"default/web": frozenset({ONE})}
    healthy = World([service(health=HOW)], slices=SLICES).rows
    assert unhealthy_by_rows(healthy.given, healthy.backends) == {}
