"""The two descriptors that need no learning."""

import torch
from torchvision.transforms.v2 import functional as V

from ucvgl.geometry import TopView, top_view
from ucvgl.methods.baselines import centred_by_domain, colour_descriptor, pixel_descriptor
from ucvgl.metrics import ranks_of, recall_at
from ucvgl.world.pairs import WorldConfig, world_pairs


def pictures(count: int = 6, size: int = 48) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(count, 3, 6, 6, generator=generator)
    return (V.resize(coarse, [size, size], antialias=True) * 255).to(torch.uint8)


def test_pixels_ignore_light_and_contrast() -> None:
    images = pictures().float()
    dimmed = images * 0.6 + 20
    similarity = (pixel_descriptor(images) * pixel_descriptor(dimmed)).sum(1)
    torch.testing.assert_close(similarity, torch.ones(6), atol=1e-5, rtol=0)


def test_colours_by_hand() -> None:
    image = torch.zeros(1, 3, 2, 2, dtype=torch.uint8)
    image[0, :, 0, 0] = 255  # one white pixel, three black: bins 511 and 0
    descriptor = colour_descriptor(image)[0]
    torch.testing.assert_close(descriptor[[0, 511]], torch.tensor([0.75, 0.25]).sqrt())
    assert int((descriptor > 0).sum()) == 2


def test_a_common_shift_of_a_domain_is_removed() -> None:
    descriptors = torch.nn.functional.normalize(torch.randn(20, 8, generator=torch.Generator().manual_seed(2)), dim=1)
    torch.testing.assert_close(centred_by_domain(descriptors + 3), centred_by_domain(descriptors))


def test_plain_pixels_find_less_as_the_world_gets_harder_and_colours_little(fresh_runs) -> None:
    """Notebook 01's table, on few places."""
    found = {}
    for level in ("easy", "medium", "hard"):
        pairs = world_pairs(WorldConfig(places=30, panorama_px=48, tile_px=32, city_size_m=256, resolution_m=1.0,
                                        difficulty=level), progress=False)  # fmt: skip
        tops, tiles = top_view(pairs.query[:], TopView.from_span(32, 50.0)), pairs.gallery[:]
        for describe in (pixel_descriptor, colour_descriptor):
            ranks = ranks_of(centred_by_domain(describe(tops)), centred_by_domain(describe(tiles)), torch.arange(30))
            found[level, describe] = recall_at(ranks, [1])["r_at_1"]
    assert found["easy", pixel_descriptor] > found["medium", pixel_descriptor] >= found["hard", pixel_descriptor]
    assert found["medium", colour_descriptor] < 25  # chance is 3.3
