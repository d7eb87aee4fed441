"""A small real check: Corridor's photos (VPR-Bench), a half of the walk adapted on, the other half searched."""

from dataclasses import replace

import numpy as np
import pytest

from ucvgl import paths
from ucvgl.data import open_dataset
from ucvgl.data.prepare import Preparation, prepare
from ucvgl.lab.profiles import vg_ssl
from ucvgl.lab.stages import learn
from ucvgl.methods.vg_ssl import evaluate, untrained_encoder


def part(data, first, last):
    """The frames from `first` to before `last`, on both sides."""
    rows = [np.flatnonzero((at >= first) & (at < last)) for at in (
        side.positions.values[:, 0] for side in (data.query, data.gallery))]  # fmt: skip
    return data.take(*rows)


@pytest.mark.slow
def test_half_of_a_corridor_teaches_about_the_other(tmp_path, monkeypatch):
    """SimCLR on either half, with the laptop's settings at the photos' own size; measured 45.0 -> 57.7 % of 111 queries."""
    root = paths.samples() / "corridor"
    if not root.exists():
        pytest.skip(f"no sample data: {root} is absent (set UCVGL_SAMPLES)")
    monkeypatch.setenv("UCVGL_RUNS", str(tmp_path))
    size = (120, 160)
    data = prepare(open_dataset("corridor", root), Preparation(size, size), progress=False)
    halves = [part(data, 0, 56), part(data, 56, 111)]
    config = vg_ssl("laptop", 0).methods["simclr"]
    config = replace(
        config, encoder=replace(config.encoder, image_px=size), geopair="random",
        training=replace(config.training, epochs=10, batch_size=16, learning_rate=5e-4),
    )  # fmt: skip
    before, after, queries = 0.0, 0.0, 0
    for train, test in (halves, halves[::-1]):
        before += len(test) * evaluate(untrained_encoder(config), test)["r_at_1"]
        after += len(test) * learn(train, config, {"test": test}, progress=False).numbers["recall"]["test"]["r_at_1"]
        queries += len(test)
    assert queries == 111
    assert after / queries > before / queries + 3
