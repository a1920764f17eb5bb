"""Policy: rows by subject behind the generation; changed subjects are made anew, the others entered as they are."""

from __future__ import annotations

import resource
from collections.abc import Callable, Iterator
from threading import Event, Thread

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from reconciler.bpf import maps, syscalls
from reconciler.bpf.syscalls import held
from reconciler.engine.diff import diff_rows
from reconciler.engine.rows import Columns
from reconciler.errors import KernelError
from reconciler.kernel.bpf_maps import PinnedMaps
from reconciler.kernel.generation import Generation
from reconciler.kernel.policy import PolicyTable
from reconciler.kernel.subjects import entered
from reconciler.model.datapath import POLICY_KEY

from .harness import REDIRECT, SHOT, Allow, Harness, eventually, policy_rows
from .packets import tcp

NONE = np.empty(0, POLICY_KEY)

allows = st.builds(
    Allow,
    subject=st.integers(100, 104),
    peer=st.integers(0, 2),
    egress=st.booleans(),
    protocol=st.sampled_from([6, 17]),
    port=st.sampled_from([0, 80, 0x8000]),
    cookie=st.integers(1, 3),
)
states = st.lists(
    allows, max_size=12, unique_by=lambda rule: (rule.subject, rule.peer, rule.egress, rule.protocol, rule.port)
)


def as_set(rows: Columns) -> set[tuple[bytes, bytes]]:
    return {(key.tobytes(), value.tobytes()) for key, value in zip(rows.keys, rows.values, strict=True)}


def ids(datapath: Harness) -> dict[int, int]:
    """Subject -> id of its rows' map."""
    found = entered(datapath.maps.open("policy"), datapath.generation.current.generation)
    return dict(zip(found[0].tolist(), found[1].tolist(), strict=True))


def stage(datapath: Harness, rules: list[Allow]) -> None:
    delta = diff_rows("policy", policy_rows(rules), datapath.policy.live(), complete=True)
    datapath.generation.begin()
    datapath.policy.write(delta.upserts(), delta.deletes())


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(history=st.lists(states, min_size=1, max_size=4))
def test_rows_are_those_of_the_last_flip_and_nothing_of_older_generations_stays(
    datapath: Harness, history: list[list[Allow]]
) -> None:
    datapath.reset()
    old: list[Allow] = []
    for new in history:
        stage(datapath, new)
        assert as_set(datapath.policy.live()) == as_set(policy_rows(old))
        datapath.generation.flip()
        assert as_set(datapath.policy.live()) == as_set(policy_rows(new))
        datapath.generation.finish()
        keys, _ = datapath.maps.open("policy").read()
        assert set(keys["subject"].tolist()) == {rule.subject for rule in new}
        assert set(keys["generation"].tolist()) <= {datapath.generation.current.generation}
        old = new


@pytest.mark.parametrize(
    "rule",
    [
        Allow(101),
        Allow(101, peer=7, egress=True),
        Allow(101, protocol=6),
        Allow(101, protocol=6, port=443),
        Allow(101, protocol=17, port=0x1230, port_bits=12),
        Allow(101, protocol=58, port=128, flags=3, proxy_port=10_001, cookie=0xFFFFFFFF),
        Allow(0xFFFFFFFF, peer=0xFFFFFFFE),
    ],
)
def test_every_kind_of_row_is_read_as_it_was_written(datapath: Harness, rule: Allow) -> None:
    datapath.become(policy=[rule])
    assert as_set(datapath.policy.live()) == as_set(policy_rows([rule]))


def test_unchanged_subjects_keep_their_maps(datapath: Harness) -> None:
    datapath.become(policy=[Allow(101), Allow(102)])
    before = ids(datapath)
    datapath.become(policy=[Allow(101), Allow(102, peer=5)])
    after = ids(datapath)
    assert after[101] == before[101]
    assert after[102] != before[102]


def test_maps_of_rows_are_named_after_their_subject(datapath: Harness) -> None:
    datapath.become(policy=[Allow(101)])
    with held(syscalls.by_id(syscalls.MAP_BY_ID, ids(datapath)[101], "opening")) as descriptor:
        assert maps.info(descriptor).name == "policy_101"


def test_a_verdict_changes_at_the_flip_and_not_before(datapath: Harness) -> None:
    client, server, _ = datapath.devices
    datapath.become_usual([Allow(client.identity, egress=True), Allow(server.identity)])
    packet = tcp(str(client.address4), 1000, str(server.address4), 80)
    stage(datapath, [Allow(client.identity, egress=True), Allow(server.identity, peer=9)])
    assert datapath.sent(packet, client).action == REDIRECT
    datapath.generation.flip()
    assert datapath.sent(packet, client).action == SHOT


def test_no_packet_is_lost_while_generations_change(datapath: Harness) -> None:
    client, server, _ = datapath.devices
    usual = [Allow(client.identity, egress=True), Allow(server.identity)]
    datapath.become_usual(usual)
    packet, stop, lost = tcp(str(client.address4), 1000, str(server.address4), 80), Event(), []

    def send() -> None:
        while not stop.is_set():
            lost.append(datapath.sent(packet, client).action)

    thread = Thread(target=send)
    thread.start()
    try:
        for cookie in range(30):
            datapath.become(policy=[*usual, Allow(client.identity, peer=9, cookie=cookie + 1)])
    finally:
        stop.set()
        thread.join()
    assert set(lost) == {REDIRECT}


def test_what_was_entered_and_never_flipped_is_removed_by_whoever_begins_next(datapath: Harness) -> None:
    datapath.become(policy=[Allow(101)])
    datapath.generation.finish()
    stage(datapath, [Allow(101, peer=3), Allow(102)])
    assert len(datapath.maps.open("policy").read()[0]) == 3
    pinned = PinnedMaps(datapath.root)
    other = Generation(pinned)
    table = PolicyTable(pinned, other)
    other.begin()
    assert len(pinned.open("policy").read()[0]) == 1
    assert as_set(table.live()) == as_set(policy_rows([Allow(101)]))


def test_what_somebody_entered_ahead_of_time_does_not_count_after_the_flip(datapath: Harness) -> None:
    datapath.become(policy=[Allow(101)])
    datapath.generation.finish()
    outer = datapath.maps.open("policy")
    keys, numbers = outer.read()
    keys["generation"], keys["subject"] = datapath.generation.next_epoch, 666
    with held(syscalls.by_id(syscalls.MAP_BY_ID, int(numbers[0]), "opening")) as rows:
        outer.update(keys, np.array([rows], np.uint32))
    datapath.become(policy=[Allow(101, peer=3)])
    assert ids(datapath).keys() == {101}


def test_only_rows_that_are_asked_for_are_shown(datapath: Harness) -> None:
    datapath.become(policy=[Allow(101), Allow(101, peer=3), Allow(102)])
    asked = policy_rows([Allow(101), Allow(103)]).keys
    assert as_set(datapath.policy.live(asked)) == as_set(policy_rows([Allow(101)]))


def test_tampered_rows_show_and_are_repaired(datapath: Harness) -> None:
    rules = [Allow(101, protocol=6, port=80), Allow(101, peer=3)]
    datapath.become(policy=rules)
    key_dtype, value_dtype = datapath.maps.policy_layout
    with held(syscalls.by_id(syscalls.MAP_BY_ID, ids(datapath)[101], "opening")) as rows:
        keys, values = maps.read(rows, key_dtype, value_dtype, 10)
        values["verdict"] = 2
        maps.update(rows, keys, values)
        maps.delete(rows, keys[:1])
        keys["prefixlen"] = 33
        maps.update(rows, keys[:1], values[:1])
    assert len(as_set(datapath.policy.live()) & as_set(policy_rows(rules))) == 0
    assert datapath.policy.live().keys["pad"].max() == 33
    datapath.become(policy=rules)
    assert as_set(datapath.policy.live()) == as_set(policy_rows(rules))


def test_two_hundred_writes_leave_no_map_behind(datapath: Harness) -> None:
    def made() -> int:
        count = 0
        for number in syscalls.ids(syscalls.MAP_NEXT_ID):
            try:
                descriptor = syscalls.by_id(syscalls.MAP_BY_ID, number, "opening")
            except KernelError:
                continue
            with held(descriptor):
                count += maps.info(descriptor).name in ("policy_70001", "policy_70002", "grace")
        return count

    for number in range(200):
        datapath.become(policy=[Allow(70001, cookie=number + 1), Allow(70002)])
    datapath.generation.finish()
    eventually(lambda: made() == 2)
    datapath.become(policy=[])
    datapath.generation.finish()
    eventually(lambda: made() == 0)


@pytest.fixture
def few_files() -> Iterator[Callable[[int], None]]:
    """Lowers the soft limit of open files for one test."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    yield lambda soft: resource.setrlimit(resource.RLIMIT_NOFILE, (soft, limits[1]))
    resource.setrlimit(resource.RLIMIT_NOFILE, limits)


def test_more_subjects_than_files_may_be_open(datapath: Harness, few_files: Callable[[int], None]) -> None:
    few_files(300)
    rules = [Allow(subject) for subject in range(1000, 1500)]
    datapath.become(policy=rules)
    datapath.become(policy=[*rules, Allow(1, peer=2)])
    assert len(datapath.policy.live()) == 501
