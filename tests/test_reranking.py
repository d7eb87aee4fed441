"""Re-scored neighbours against dense versions of the published formulas; hubs; memory."""

from functools import partial

import pytest
import torch
import torch.nn.functional as F

from ucvgl import reranking, search
from ucvgl.pseudo_labels import PseudoLabels
from ucvgl.reranking import agreeing, aligned, csls_neighbours, inverted_softmax_neighbours, sinkhorn_neighbours
from ucvgl.search import both_ways

ALL = (csls_neighbours, inverted_softmax_neighbours, sinkhorn_neighbours)


@pytest.fixture(params=[64, 1 << 20])
def chunks(request, monkeypatch):
    """Blocks of so many bytes."""
    monkeypatch.setattr(reranking, "blocks", partial(search.blocks, chunk_bytes=request.param))


def views(n, m, width=6):
    """Two views of places: ground image i shows tile i % m."""
    generator = torch.Generator().manual_seed(0)
    satellite = torch.randn(m, width, generator=generator).double()
    ground = satellite[torch.arange(n) % m] + 0.4 * torch.randn(n, width, generator=generator)
    return F.normalize(ground, dim=1), F.normalize(satellite, dim=1)


def same_lists(both, of_ground, of_satellite):
    """The lists are the head of a full sort of two dense score matrices."""
    for score, index, dense in (
        (both.ground_score, both.ground_index, of_ground),
        (both.satellite_score, both.satellite_index, of_satellite),
    ):
        expected = dense.sort(dim=1, descending=True)
        torch.testing.assert_close(score, expected.values[:, : score.shape[1]], rtol=0, atol=1e-9)
        # a saturated softmax ties in the last place: the images listed have these scores, each once
        torch.testing.assert_close(score, dense.gather(1, index), rtol=0, atol=1e-9)
        assert all(len(set(row)) == len(row) for row in index.tolist())


@pytest.mark.parametrize(("n", "m", "k"), [(31, 24, 10), (6, 7, 50)])
def test_csls_is_the_published_formula(n, m, k):
    x, y = views(n, m)
    cosine = x @ y.T
    r_x = torch.stack([row.sort(descending=True).values[:k].mean() for row in cosine])
    r_y = torch.stack([row.sort(descending=True).values[:k].mean() for row in cosine.T])
    dense = 2 * cosine - r_x[:, None] - r_y
    same_lists(csls_neighbours(x, y, 4, 3, k=k), dense, dense.T)


@pytest.mark.usefixtures("chunks")
@pytest.mark.parametrize("temperature", [0.01, 1.0])
def test_inverted_softmax_is_the_published_formula(temperature):
    x, y = views(23, 17)
    cosine = x @ y.T
    power = (cosine / temperature).exp()
    of_ground = temperature * (power / power.mean(0)).log()
    of_satellite = temperature * (power.T / power.mean(1)).log()
    found = inverted_softmax_neighbours(x, y, 4, 3, temperature=temperature)
    same_lists(found, of_ground, of_satellite)


@pytest.mark.parametrize("rescore", ALL)
def test_a_hub_loses_what_it_took(rescore):
    """Eight places all round, and a tile in the middle that is nearer to every ground image than its own."""
    angle = torch.arange(8) * (2 * torch.pi / 8)
    own = torch.stack([angle.cos(), angle.sin(), torch.full((8,), 0.5)], 1).double()
    satellite = F.normalize(torch.cat([own, torch.tensor([[0.0, 0.0, 1.0]], dtype=torch.float64)]), dim=1)
    ground = F.normalize(own * torch.tensor([1, 1, 3.4], dtype=torch.float64), dim=1)  # drawn to the middle
    plain = both_ways(ground, satellite, 2, 1).ground_index[:, 0]
    assert (plain == 8).all()
    options = {"k": 3} if rescore == csls_neighbours else {}
    found = rescore(ground, satellite, 2, 1, **options).ground_index[:, 0]
    assert (found == torch.arange(8)).all()


@pytest.mark.usefixtures("chunks")
def test_sinkhorn_scales_rows_and_columns_in_turn():
    x, y = views(9, 12)
    cost, temperature, rounds = x @ y.T, 0.2, 4
    plan = (cost / temperature).exp()
    for _ in range(rounds):
        plan = plan / plan.mean(1, keepdim=True)
        plan = plan / plan.mean(0, keepdim=True)
    dense = temperature * plan.log()
    found = sinkhorn_neighbours(x, y, 4, 3, temperature=temperature, rounds=rounds)
    same_lists(found, dense, dense.T)


def test_a_label_stays_if_a_neighbour_confirms_it():
    """Six panoramas and tiles in two streets of three: the last label of the second street points into the first."""
    angle = torch.tensor([0.0, 0.1, 0.2, 2.0, 2.1, 2.2])
    street = torch.stack([angle.cos(), angle.sin()], 1)
    satellite = torch.tensor([0, 1, -1, 3, 4, 0])
    labels = PseudoLabels(satellite, torch.zeros(6), torch.ones(6).bool(), torch.zeros(6).bool())
    kept = agreeing(labels, street, street, k=2)
    assert kept.satellite.tolist() == [0, 1, -1, 3, 4, -1]


def test_alignment_undoes_a_rotation_without_pairs():
    generator = torch.Generator().manual_seed(0)
    spread = torch.linspace(3, 1, 6)
    places = (torch.rand(300, 6, generator=generator).pow(3) - 0.25) * spread
    turn = torch.linalg.qr(torch.randn(6, 6, generator=generator))[0]
    ground, satellite = aligned(places @ turn, places + 0.01 * torch.randn(300, 6, generator=generator), width=6)
    assert ((ground @ satellite.T).argmax(1) == torch.arange(300)).float().mean() > 0.95
    few, _ = aligned(ground[:4], satellite)  # four images have no more axes
    assert few.shape == (4, 4)
