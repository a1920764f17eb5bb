"""Maglev tables: even, steady, and the same however they are made."""

from __future__ import annotations

from random import Random

import numpy as np
import pytest

from reconciler.model.maglev import FEW, Pool, size_of, tables


def pool(backends: int, seed: int = 0, weights: tuple[int, ...] | None = None) -> Pool:
    random = Random(seed)
    return Pool(tuple(random.getrandbits(64) for _ in range(backends)), weights or (1,) * backends)


def named(of: Pool) -> np.ndarray[tuple[int], np.dtype[np.uint64]]:
    """slot -> hash of its backend."""
    (table,) = tables([of])
    return np.array(of.hashes, np.uint64)[table]


def without(of: Pool, place: int) -> Pool:
    return Pool(of.hashes[:place] + of.hashes[place + 1 :], of.weights[:place] + of.weights[place + 1 :])


@pytest.mark.parametrize("backends", [1, 2, 3, 10, 100, 300])
def test_shares_differ_by_one_slot(backends: int) -> None:
    (table,) = tables([pool(backends)])
    shares = np.bincount(table, minlength=backends)
    assert len(table) == size_of(backends)
    assert shares.max() - shares.min() <= 1


def test_shares_follow_weights() -> None:
    (table,) = tables([pool(4, weights=(1, 2, 3, 4))])
    shares = np.bincount(table) / len(table)
    assert np.allclose(shares, [0.1, 0.2, 0.3, 0.4], atol=0.005)


def test_flows_spread_over_backends_as_chance_would_have_it() -> None:
    backends, flows = 100, 100_000
    (table,) = tables([pool(backends)])
    found = np.bincount(table[np.random.default_rng(1).integers(0, len(table), flows)], minlength=backends)
    chi_square = float(((found - flows / backends) ** 2 / (flows / backends)).sum())
    assert chi_square < 148.2  # 99 degrees of freedom: one in a thousand is above


@pytest.mark.parametrize("place", [0, 17, 50, 99])
def test_one_backend_of_a_hundred_goes_and_at_most_two_in_a_hundred_slots_of_others_move(place: int) -> None:
    before_pool = pool(100)
    before, after = named(before_pool), named(without(before_pool, place))
    others = before != before_pool.hashes[place]
    assert (before[others] != after[others]).mean() <= 0.02


def test_the_order_of_backends_does_not_matter() -> None:
    one = pool(10, weights=tuple(range(1, 11)))
    other = Pool(one.hashes[::-1], one.weights[::-1])
    assert (named(one) == named(other)).all()


def test_many_pools_side_by_side_are_what_each_is_alone() -> None:
    pools = [pool(1 + seed % 5, seed) for seed in range(10 * FEW)]
    for together, one in zip(tables(pools), pools, strict=True):
        assert (together == tables([one])[0]).all()


def test_a_pool_without_backends_has_no_slots() -> None:
    (table,) = tables([Pool((), ())])
    assert not len(table)
