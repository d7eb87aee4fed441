"""Re-scored neighbours against dense versions of the published formulas; hubs; memory."""

from functools import partial

import pytest
import torch
import torch.nn.functional as F

from ucvgl import reranking, search
from ucvgl.pseudo_labels import PseudoLabels
from ucvgl.reranking import agreeing, aligned, csls_neighbours, inverted_softmax_neighbours, sinkhorn_neighbours
from ucvgl.search import both_ways


def views(n, m, width=6):
    """Two views of places: ground image i shows tile i % m."""
    generator = torch.Generator().manual_seed(0)
    satellite = torch.randn(m, width, generator=generator).double()
    ground = satellite[torch.arange(n) % m] + 0.4 * torch.randn(n, width, generator=generator)
    return F.normalize(ground, dim=1), F.normalize(satellite, dim=1)


def same_lists(both, of_ground, of_satellite):
    """The lists are the head of a full sort of two dense score matrices; of equal scores any image will do."""
    for score, index, dense in (
        (both.ground_score, both.ground_index, of_ground), (both.satellite_score, both.satellite_index, of_satellite),
    ):  # fmt: skip
        torch.testing.assert_close(score, dense.sort(descending=True).values[:, : score.shape[1]], rtol=0, atol=1e-9)
        torch.testing.assert_close(score, dense.gather(1, index), rtol=0, atol=1e-9)


@pytest.mark.parametrize(("n", "m", "k"), [(31, 24, 10), (6, 7, 50)])
def test_csls_is_the_published_formula(n, m, k):
    x, y = views(n, m)
    cosine = x @ y.T
    r_x, r_y = (table.sort(descending=True).values[:, :k].mean(1) for table in (cosine, cosine.T))
    dense = 2 * cosine - r_x[:, None] - r_y
    same_lists(csls_neighbours(x, y, 4, 3, k=k), dense, dense.T)


@pytest.mark.parametrize("chunk_bytes", [64, 1 << 20])
@pytest.mark.parametrize("temperature", [0.05, 1.0])
def test_inverted_softmax_and_sinkhorn_are_the_published_formulas(temperature, chunk_bytes, monkeypatch):
    monkeypatch.setattr(reranking, "blocks", partial(search.blocks, chunk_bytes=chunk_bytes))
    x, y = views(23, 17)
    power = plan = (x @ y.T / temperature).exp()
    found = inverted_softmax_neighbours(x, y, 4, 3, temperature=temperature)
    same_lists(found, *(temperature * (table / table.mean(0)).log() for table in (power, power.T)))
    for _ in range(4):
        plan = plan / plan.mean(1, keepdim=True)
        plan = plan / plan.mean(0, keepdim=True)
    dense = temperature * plan.log()
    same_lists(sinkhorn_neighbours(x, y, 4, 3, temperature=temperature, rounds=4), dense, dense.T)


@pytest.mark.parametrize("rescore", [csls_neighbours, inverted_softmax_neighbours, sinkhorn_neighbours])
def test_a_hub_loses_what_it_took(rescore):
    """Eight places all round, and a tile in the middle that is nearer to every ground image than its own."""
    angle = torch.arange(8) * (2 * torch.pi / 8)
    own = torch.stack([angle.cos(), angle.sin(), torch.full((8,), 0.5)], 1)
    satellite = F.normalize(torch.cat([own, torch.tensor([[0.0, 0.0, 1.0]])]), dim=1)
    ground = F.normalize(own * torch.tensor([1, 1, 3.4]), dim=1)  # drawn to the middle
    assert (both_ways(ground, satellite, 2, 1).ground_index[:, 0] == 8).all()
    options = {"k": 3} if rescore == csls_neighbours else {}
    found = rescore(ground, satellite, 2, 1, **options).ground_index[:, 0]
    assert (found == torch.arange(8)).all()


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
