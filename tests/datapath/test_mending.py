"""Rows that somebody else changed are put right in place: the same rows, no flip of policy, every flow judged again."""

from __future__ import annotations

from ipaddress import ip_address

import numpy as np
from hypothesis import HealthCheck, given, settings
from numpy.typing import NDArray

from reconciler.bpf import maps, syscalls
from reconciler.bpf.syscalls import held
from reconciler.engine.diff import diff_rows
from reconciler.engine.rows import Columns
from reconciler.kernel.generation import Version
from reconciler.kernel.subjects import entered
from reconciler.model.datapath import EndpointRow

from .harness import OK, REDIRECT, SHOT, Allow, Harness, ipcache_rows, policy_rows
from .packets import tcp
from .test_ipcache_table import ADDRESSES, State, as_set, identity_by_rule, identity_in_kernel, row, states
from .test_policy_table import ids
from .test_policy_table import states as policies


def mended(datapath: Harness, table: str, wanted: Columns) -> bool:
    of = datapath.ipcache if table == "ipcache" else datapath.policy
    delta = diff_rows(table, wanted, of.live(), complete=True)
    assert hasattr(delta, "deletes")
    return of.mend(delta.upserts(), delta.deletes())


def write_plainly(datapath: Harness, state: State) -> None:
    """As a stranger does who knows the layout: exactly these rows, at once."""
    for name in ("ipcache4", "cidr4"):
        map_ = datapath.maps.open(name)
        map_.delete(map_.read()[0])
    assert mended(datapath, "ipcache", ipcache_rows(state))


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(wanted=states, tampered=states)
def test_whatever_was_written_the_ipcache_becomes_what_it_should_be(
    datapath: Harness, wanted: State, tampered: State
) -> None:
    datapath.reset()
    datapath.become(ipcache=wanted, policy=[Allow(101)])
    datapath.generation.finish()
    write_plainly(datapath, tampered)
    before = datapath.generation.current
    assert mended(datapath, "ipcache", ipcache_rows(wanted))
    assert as_set(datapath.ipcache.live()) == as_set(ipcache_rows(wanted))
    assert [identity_in_kernel(datapath, one) for one in ADDRESSES] == [
        identity_by_rule(wanted, one) for one in ADDRESSES
    ]
    assert datapath.generation.current == Version(before.epoch + 1, before.generation)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rules=policies, others=policies)
def test_whatever_was_written_into_a_subjects_trie_becomes_what_it_should_be(
    datapath: Harness, rules: list[Allow], others: list[Allow]
) -> None:
    datapath.reset()
    datapath.become(policy=rules)
    datapath.generation.finish()
    tries = ids(datapath)
    for number in tries.values():
        scramble(datapath, number)
    before = datapath.generation.current
    assert mended(datapath, "policy", policy_rows(rules)) == bool(rules)
    assert as_set(datapath.policy.live()) == as_set(policy_rows(rules))
    assert ids(datapath) == tries
    assert datapath.generation.current == Version(before.epoch + bool(rules), before.generation)


def scramble(datapath: Harness, number: int) -> None:
    """The first row goes, the last one says something else."""
    key_dtype, value_dtype = datapath.maps.policy_layout
    with held(syscalls.by_id(syscalls.MAP_BY_ID, number, "opening a trie")) as trie:
        keys, values = maps.read(trie, key_dtype, value_dtype, maps.info(trie).max_entries)
        values["cookie"] += 7
        assert not maps.update(trie, keys[-1:], values[-1:])
        assert not maps.delete(trie, keys[:1])


def test_a_missing_trie_takes_a_write(datapath: Harness) -> None:
    datapath.become(policy=[Allow(101), Allow(102)])
    datapath.generation.finish()
    outer = datapath.maps.open("policy")
    outer.delete(outer.read()[0][:1])
    assert not mended(datapath, "policy", policy_rows([Allow(101), Allow(102)]))
    datapath.become(policy=[Allow(101), Allow(102)])
    assert as_set(datapath.policy.live()) == as_set(policy_rows([Allow(101), Allow(102)]))


def test_a_trie_without_room_takes_a_write(datapath: Harness) -> None:
    datapath.become(policy=[Allow(101)])
    datapath.generation.finish()
    assert not mended(datapath, "policy", policy_rows([Allow(101), Allow(101, peer=5)]))


def test_nothing_is_mended_while_something_is_staged(datapath: Harness) -> None:
    state: State = {row("10.0.0.1"): (5, 0)}
    assert not mended(datapath, "ipcache", ipcache_rows(state))
    datapath.become(ipcache=state)
    datapath.generation.finish()
    assert datapath.generation.settled_epoch
    datapath.generation.begin()
    datapath.ipcache.write(ipcache_rows({row("10.0.0.2"): (6, 0)}), NO_KEYS)
    assert not datapath.generation.settled_epoch
    assert not mended(datapath, "ipcache", ipcache_rows({}))
    assert as_set(datapath.ipcache.live()) == as_set(ipcache_rows(state))


def test_a_flow_that_was_judged_by_a_wrong_identity_is_judged_again(datapath: Harness) -> None:
    client, server, _ = datapath.devices
    datapath.become_usual([Allow(client.identity, egress=True), Allow(server.identity, peer=client.identity)])
    datapath.generation.finish()
    wanted = datapath.ipcache.live()
    packet = tcp(str(client.address4), 40_000, str(server.address4), 80)
    wrong: State = {row("0.0.0.0/0"): (2, 0), client.address4: (4242, 1), server.address4: (server.identity, 1)}
    write_plainly(datapath, wrong)
    assert datapath.sent(packet, client).action == SHOT
    assert mended(datapath, "ipcache", wanted)
    assert datapath.sent(packet, client).action in (OK, REDIRECT)


def test_keys_in_the_maps_lead_to_rows(datapath: Harness) -> None:
    every = [row(text) for text in ("10.1.1.1", "10.0.0.0/8", "fd00::1", "fd00::/16")]
    state: State = dict.fromkeys(every, (5, 0))
    rules = [Allow(101, peer=7, egress=True), Allow(101, protocol=6, port=443)]
    datapath.become(ipcache=state, policy=rules)
    datapath.generation.finish()
    for name, one in zip(("ipcache4", "cidr4", "ipcache6", "cidr6"), every, strict=True):
        found = datapath.ipcache.keys_of(name, datapath.maps.open(name).read()[0].tobytes())
        assert found.tobytes() == ipcache_rows({one: (0, 0)}).keys.tobytes()
    assert sorted(_policy_keys(datapath)) == sorted(key.tobytes() for key in policy_rows(rules).keys)
    local = {ip_address("10.1.0.1"): EndpointRow("#7", "02:00:00:00:00:01")}
    datapath.endpoints.write(local, ())
    raw = datapath.maps.open("endpoints4").read()[0].tobytes()
    assert datapath.endpoints.keys_of("endpoints4", raw) == list(local)


def _policy_keys(datapath: Harness) -> list[bytes]:
    (number,) = entered(datapath.maps.open("policy"), datapath.generation.current.generation)[1].tolist()
    key_dtype, value_dtype = datapath.maps.policy_layout
    with held(syscalls.by_id(syscalls.MAP_BY_ID, number, "opening a trie")) as trie:
        raw = maps.read(trie, key_dtype, value_dtype, 10)[0].tobytes()
    return [key.tobytes() for key in datapath.policy.keys_of(101, raw)]


NO_KEYS: NDArray[np.void] = ipcache_rows({}).keys
