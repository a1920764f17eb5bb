"""Columns, plans and counts as people read them."""

from __future__ import annotations

from datetime import UTC, datetime

import click
import pytest

from reconciler.cli.monitor import _line
from reconciler.cli.output import counts_text, show_fields, show_plan, show_rows


def test_rows_are_aligned_under_their_names(capsys: pytest.CaptureFixture[str]) -> None:
    show_rows([{"name": "web", "addresses": ["10.0.0.1", "fd00::1"]}, {"name": "b", "addresses": []}], empty="none")
    assert capsys.readouterr().out == "NAME  ADDRESSES\nweb   10.0.0.1, fd00::1\nb     -\n"


def test_no_rows_are_said_in_words(capsys: pytest.CaptureFixture[str]) -> None:
    show_rows([], empty="there are none")
    assert capsys.readouterr().out == "there are none\n"


def test_a_long_cell_is_cut(capsys: pytest.CaptureFixture[str]) -> None:
    show_rows([{"a": "x" * 100}], empty="")
    assert capsys.readouterr().out.splitlines()[1] == "x" * 59 + "…"


def test_fields_show_what_is_nested(capsys: pytest.CaptureFixture[str]) -> None:
    show_fields([("daemon", {"pid": 7, "up": True}), ("error", None)])
    assert capsys.readouterr().out == "daemon  pid=7 up=yes\nerror   -\n"


def test_a_plan_has_no_colour_where_nobody_sees_it(capsys: pytest.CaptureFixture[str]) -> None:
    show_plan("routes: +1 ~0 -0\n  + 10.0.0.0/8")
    assert capsys.readouterr().out == "routes: +1 ~0 -0\n  + 10.0.0.0/8\n"


@pytest.mark.parametrize("counts", [{"added": 3, "changed": 1, "removed": 0}, [3, 1, 0], "+3 ~1 -0"])
def test_counts_are_read_in_each_of_their_forms(counts: object) -> None:
    assert counts_text({"policy": counts}) == "policy +3 ~1 -0"


def test_an_event_is_one_line_that_ends_with_the_rule_behind_it() -> None:
    time = datetime(2026, 1, 2, 12, 1, 2, 345000, UTC)
    party = {
        "address": "10.44.0.3",
        "port": 4000,
        "identity": 258,
        "labels": ["k8s:app=client"],
        "workload": "default/client",
    }
    event = {
        "time": time.isoformat(timespec="microseconds"),
        "type": "drop",
        "reason": "policy-default",
        "protocol": "tcp",
        "source": party,
        "destination": {**party, "workload": "default/web", "port": 80, "identity": 257},
        "reply": False,
        "rule": {
            "cookie": 1,
            "reference": "NetworkPolicy/default/web",
            "field": "",
            "path": "policies/web.yaml",
            "line": 1,
            "commit": "1a2b3c4d5e6f",
        },
    }
    assert click.unstyle(_line(event)) == (
        f"{time.astimezone():%H:%M:%S}.345 drop    default/client (id 258) -> default/web:80 (id 257) tcp  "
        "policy-default by NetworkPolicy/default/web  policies/web.yaml:1 @ 1a2b3c4d"
    )


def test_who_is_no_workload_is_shown_by_its_address_and_what_it_is() -> None:
    outside = {
        "address": "fd30::ffff",
        "port": 9,
        "identity": 2,
        "labels": ["reserved:world", "reserved:world-ipv6"],
        "workload": "",
    }
    event = {
        "time": "2026-01-02T12:01:02.345000+00:00",
        "type": "verdict",
        "reason": "allowed",
        "protocol": "icmpv6",
        "source": outside,
        "destination": outside,
        "reply": True,
        "rule": None,
        "icmp": {"type": 128, "code": 0, "identifier": 1},
    }
    assert _line(event).endswith(
        "fd30::ffff (world-ipv6) -> [fd30::ffff]:9 (world-ipv6) icmpv6 type 128 code 0 reply  allowed"
    )
