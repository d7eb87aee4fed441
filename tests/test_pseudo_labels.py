"""Pseudo-labels against naive loops, their schedule, given labels, epochs of pairs, quality, correctness."""

import dataclasses
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import skew
from toy_sets import generator, unit

from ucvgl import pseudo_labels as p
from ucvgl.data.container import Positives
from ucvgl.errors import InputError
from ucvgl.pseudo_labels import MiningRule, PseudoLabels, select
from ucvgl.search import both_ways

ANY = MiningRule(threshold=0)


def views(n, m, seed=0, width=4):
    """Random unit vectors in float64: no equals."""
    return unit(n, width, seed), unit(m, width, seed + 100)


def mine(ground, satellite, rule):
    return select(both_ways(ground, satellite, 2, min(rule.share, len(ground))), rule)


def labelled(satellite):
    satellite = torch.tensor(satellite, dtype=torch.int64)
    return PseudoLabels(satellite, torch.zeros(len(satellite)), satellite >= 0, torch.zeros_like(satellite).bool())


@given(st.integers(1, 25), st.integers(2, 25), st.integers(1, 4), st.sampled_from([0, 0.02, 0.5]), st.integers(0, 99))
def test_mining_is_the_rule_in_loops(n, m, share, threshold, seed):
    x, y = views(n, m, seed)
    cosine = (x @ y.T).numpy()
    for need_mutual in (True, False):
        expected = []
        for i in range(n):
            first, second = sorted(range(m), key=lambda j: -cosine[i, j])[:2]
            nearest = sorted(range(n), key=lambda g: -cosine[g, first])[:share]
            ok = (i in nearest or not need_mutual) and cosine[i, first] - cosine[i, second] >= threshold
            expected.append(first if ok else -1)
        labels = mine(x, y, MiningRule(need_mutual, threshold, share))
        assert labels.satellite.tolist() == expected
        assert labels.count == sum(s >= 0 for s in expected)


@pytest.mark.parametrize("keep", [0.0, 0.29])
def test_keep_takes_the_best_margins(keep):
    x, y = views(300, 300, width=6)
    everything, some = mine(x, y, ANY), mine(x, y, MiningRule(threshold=0, keep=keep))
    assert some.count == math.floor(keep * everything.count + 1e-9)
    candidates = everything.satellite >= 0
    best = some.margin.where(candidates, -1).argsort(descending=True)[: some.count]
    assert set(best.tolist()) == set((some.satellite >= 0).nonzero()[:, 0].tolist())


def test_nothing_to_choose_from_and_no_label_at_all_say_what_to_do():
    with pytest.raises(InputError, match="a satellite set of one"):
        select(both_ways(*views(4, 1), 1, 1), ANY)
    for satellite in ([-1, -1, -1], []):
        with pytest.raises(p.NoPseudoLabels, match=r"found none for .* images.*Lower the threshold"):
            p.epoch_items(labelled(satellite), 5, generator(), few=0.0)


@given(st.integers(0, 60), st.floats(0, 1), st.one_of(st.none(), st.integers(0, 50)))
def test_a_part_of_the_labels_is_given(n, ratio, seed):
    best = torch.arange(n) * 3 % 17
    best[::4] = -1  # unknown
    given_ = p.given_subset(best, ratio, seed=seed)
    some = given_ >= 0
    assert int(some.sum()) == round(ratio * int((best >= 0).sum()))
    assert torch.equal(given_[some], best[some])
    more = p.given_subset(best, min(1, ratio + 0.2), seed=seed)
    assert torch.equal(more[some], given_[some])  # a greater part contains a smaller one


def test_given_labels_take_the_place_of_mined_ones():
    mined, given_ = labelled([5, 6, 7, -1, 2]), torch.tensor([-1, 5, 7, 3, -1])
    mixed = p.mix_given(mined, given_)
    assert mixed.satellite.tolist() == [-1, 5, 7, 3, 2]  # ground 0 claimed tile 5, which belongs to ground 1
    assert mixed.given.tolist() == [False, True, True, True, False]
    assert p.mix_given(mined, given_, share=2).satellite.tolist() == [5, 5, 7, 3, 2]
    shared = torch.tensor([-1, 4, 4, -1, -1])  # given ones may share a tile, whatever the rule
    assert p.mix_given(mined, shared).satellite.tolist() == [5, 4, 4, -1, 2]


@given(st.integers(1, 120), st.data())
def test_few_labels_are_repeated_as_often_as_published(n, data):
    count = data.draw(st.integers(1, n))
    labels = labelled([*range(count), *[-1] * (n - count)])
    items = p.epoch_items(labels, n + 5, generator(data.draw(st.integers(0, 99))), few=1.0)
    if count == n:  # not fewer than n: every ground image once
        assert sorted(items.ground.tolist()) == list(range(n))
        return
    assert items.matched.all()
    assert torch.equal(items.satellite, labels.satellite[items.ground])
    passes = n // (count + 1) + 1
    assert torch.bincount(items.ground, minlength=n).tolist() == [passes] * count + [0] * (n - count)
    for batch in items.ground.unfold(0, min(len(items), count // 2 + 1), 1).tolist():
        assert len(set(batch)) == len(batch)


@given(st.integers(1, 60), st.integers(0, 60), st.integers(0, 99))
def test_enough_labels_train_on_every_ground_image(n, extra, seed):
    count = math.ceil(0.4 * n)
    labels = labelled([*range(count), *[-1] * (n - count)])
    items = p.epoch_items(labels, count + extra, generator(seed))
    assert torch.equal(items.matched, labels.satellite[items.ground] >= 0)
    assert torch.equal(items.satellite[items.matched], labels.satellite[items.ground[items.matched]])
    random = items.satellite[~items.matched]
    if extra == 0:  # every satellite image is taken: nothing to set beside the others
        assert sorted(items.ground.tolist()) == list(range(count))
        return
    assert sorted(items.ground.tolist()) == list(range(n))
    assert ((random >= count) & (random < count + extra)).all()
    times = torch.bincount(random - count, minlength=extra)
    assert times.max() - times.min() <= 1  # used again only when all have been used


@given(st.integers(1, 20), st.integers(2, 20), st.integers(0, 99))
def test_quality_is_what_loops_count(n, m, seed):
    x, y = views(n, m, seed)
    cosine = (x @ y.T).numpy()
    found, cycle, met, margin = np.zeros(m), 0, 0, 0.0
    for i in range(n):
        order = np.argsort(-cosine[i])
        back = np.argsort(-cosine[:, order[0]])
        met, cycle = met + (back[0] == i), cycle + (i in back[:5])
        margin += cosine[i, order[0]] - cosine[i, order[1]]
        found[order[:5]] += 1
    hubness = 0.0 if np.ptp(found) == 0 else skew(found)
    measured = p.quality(both_ways(x, y, min(5, m), min(5, n)))
    expected = {"mutual_rate": met / n, "mean_margin": margin / n, "cycle": cycle / n, "hubness": hubness}
    assert measured == pytest.approx(expected, abs=1e-9)


def test_correctness_counts_mined_labels_whose_truth_is_known():
    truth = Positives.of([[3], [1, 0], [], None, [2], [4]])
    labels, right = labelled([3, 0, 1, 2, -1, 0]), (truth.pairs(), torch.tensor(truth.known))
    assert p.correctness(labels, *right) == 2 / 4  # 0 and 1 right, 2 and 5 wrong, 3 unknown, 4 unlabelled
    marked = dataclasses.replace(labels, given=torch.arange(6) == 0)
    assert p.correctness(marked, *right) == pytest.approx(1 / 3)
    assert math.isnan(p.correctness(labelled([-1] * 6), *right))
