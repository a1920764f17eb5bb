"""Drift reports as people and programs read them."""

import json

from reconciler.model.origin import Origin
from reconciler.observe.drift_log import DriftReport
from reconciler.observe.process import Process

ORIGIN = Origin("policies/web.yaml", 8, "NetworkPolicy", "default/web", "1a2b3c4d" * 5)
PROCESS = Process(812, "bpftool map delete", "root", parents=("bash(800)",))


def test_a_report_says_what_who_and_how_long() -> None:
    report = DriftReport(
        0, "policy", "deleted", ("a", "b"), "1a2b3c4d" * 5, PROCESS, repaired_ms=0.42, origins=(ORIGIN,)
    )
    assert str(report) == (
        "policy: 2 rows deleted (a, b) by bpftool map delete (pid 812, root) from bash(800);"
        " repaired in 0.4 ms to 1a2b3c4d1a2b, policies/web.yaml:8"
    )


def test_an_unknown_writer_is_unknown_for_a_reason() -> None:
    report = DriftReport(0, "links", "changed", ("web",), "", unknown_because="netlink names no writer of links")
    assert "by an unknown process: netlink names no writer of links; not repaired" in str(report)


def test_many_keys_are_counted_not_listed() -> None:
    report = DriftReport(0, "ipcache", "added", tuple("abcdefg"), "")
    assert "7 rows added (a, b, c and 4 more)" in str(report)


def test_rows_that_are_not_named_are_counted_too() -> None:
    report = DriftReport(0, "ipcache", "added", tuple("abcd"), "", more=900)
    assert "904 rows added (a, b, c and 901 more)" in str(report)


def test_rows_of_several_documents_are_not_said_to_be_of_one() -> None:
    others = tuple(Origin(f"policies/{name}.yaml", 1, "NetworkPolicy", f"default/{name}", "c1") for name in "ab")
    report = DriftReport(0, "policy", "deleted", ("a", "b"), "c1", PROCESS, repaired_ms=0.4, origins=(ORIGIN, *others))
    assert str(report).endswith("to c1, policies/web.yaml:8 and 2 other documents")


def test_json_carries_everything() -> None:
    report = DriftReport(0, "policy", "deleted", ("a",), "c1", PROCESS, repaired_ms=1.5, origins=(ORIGIN,))
    assert json.loads(json.dumps(report.to_json())) == {
        "time": "1970-01-01T00:00:00.000000+00:00",
        "table": "policy",
        "what": "deleted",
        "keys": ["a"],
        "more": 0,
        "by": {
            "pid": 812,
            "command": "bpftool map delete",
            "user": "root",
            "login_user": "",
            "parents": ["bash(800)"],
            "ended": False,
        },
        "unknown_because": "",
        "repaired_ms": 1.5,
        "commit": "c1",
        "origins": [
            {
                "path": "policies/web.yaml",
                "line": 8,
                "kind": "NetworkPolicy",
                "name": "default/web",
                "commit": "1a2b3c4d" * 5,
            }
        ],
    }
