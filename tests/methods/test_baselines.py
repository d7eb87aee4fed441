"""The two descriptors that need no learning."""

import torch
from torchvision.transforms.v2 import functional as V

from ucvgl.methods.baselines import colour_descriptor, pixel_descriptor


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
