"""What was retrieved and where it lies: right is what the positives say, each city has a map of its own."""

from dataclasses import replace

import numpy as np
import torch
from toy_sets import N, toy

from ucvgl.data.container import Positives
from ucvgl.lab import maps, settings
from ucvgl.methods.ucvgl import Descriptors
from ucvgl.positions import Metres, Positions
from ucvgl.pseudo_labels import PseudoLabels
from ucvgl.world.rendering import CITY_GAP_M


def test_right_is_what_the_positives_say():
    ground, satellite = torch.eye(4), torch.eye(4)[[1, 0, 2, 3]]
    held = maps.retrieved(Descriptors(ground, satellite), Positives.of([[1], [0, 2], [3], None]))
    assert held.right[:, 0].tolist() == [True, True, False, False]
    assert held.right.sum(1).tolist() == [1, 2, 1, 0]
    assert torch.equal(held.margin, torch.ones(4))
    assert bool(held.mutual.all())


def located(name, east):
    where = Positions(np.stack([east, np.arange(N) * 10.0], 1), Metres("here"), name)
    data = replace(toy(), positives=Positives.one_each(np.arange(N)), name=name)
    return replace(data, query=replace(data.query, positions=where), gallery=replace(data.gallery, positions=where))


def labels(satellite):
    none = torch.zeros(N)
    return PseudoLabels(satellite, none, none.bool(), none.bool())


def test_each_city_of_the_world_is_a_map_and_no_line_leads_to_another():
    east = np.where(np.arange(N) < N // 2, 5.0, CITY_GAP_M + 5.0)
    own = torch.arange(N)
    own[0], own[1], own[2] = N - 1, 2, -1  # into the other city, to a neighbour, without a label
    found = maps.places(located(settings.WORLD, east), labels(own))
    assert found["city"][0] == "city 1"
    assert found["city"][-1] == "city 2"
    assert found["position"][:, 0].tolist() == [5.0] * N
    assert found["status"].tolist()[:4] == [0, 0, -1, 1]
    assert found["matched_position"].isnan().any(1).tolist()[:4] == [True, False, True, False]
    assert found["matched_position"][1].tolist() == [5.0, 20.0]


def test_other_data_is_one_map_and_without_positions_none():
    data = located("own", np.full(N, 1000.0))
    found = maps.places(data, labels(torch.arange(N)))
    assert found["city"] is None
    assert found["position"].amin(0).tolist() == [0.0, 0.0]
    bare = replace(data, query=replace(data.query, positions=None))
    assert maps.places(bare, labels(torch.arange(N))) is None
