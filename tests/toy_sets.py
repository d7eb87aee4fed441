"""Toy images that a small encoder learns from in seconds, and what the tests of several stages share."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from ucvgl.data.container import ArrayImages, Dataset, Parts, Positives
from ucvgl.encoders import EncoderConfig
from ucvgl.methods.common import BEST
from ucvgl.positions import Metres, Positions

N, SIZE = 24, 16
ENCODER = EncoderConfig("test_efficientnet", depth=2, image_px=(SIZE, SIZE), safa_heads=2)


def blocks(rng):
    """Large blocks of colour, and the same with noise: uint8 (N, 3, SIZE, SIZE) each."""
    clean = rng.integers(0, 256, (N, 3, 4, 4)).repeat(4, 2).repeat(4, 3)
    return clean, np.clip(clean + rng.normal(0, 12, clean.shape), 0, 255)


def image_set(pixels, source, positions=None):
    """An image set of arrays, named 0, 1, ..."""
    return ArrayImages(map(str, range(len(pixels))), torch.from_numpy(pixels.astype(np.uint8)), positions, source)


def weights(stage):
    """What a stage hands on."""
    return load_file(stage.folder / BEST)


def same(first, second):
    """Whether two dictionaries of tensors are equal."""
    return first.keys() == second.keys() and all(torch.equal(value, second[name]) for name, value in first.items())


def randn(*shape, seed=0, dtype=torch.float64):
    """Normal numbers of a seed."""
    return torch.randn(*shape, generator=generator(seed), dtype=dtype)


def unit(count, dim, seed):
    """Random unit vectors in float64."""
    return torch.nn.functional.normalize(randn(count, dim, seed=seed), dim=1)


def angles(*degrees):
    """Unit vectors in the plane."""
    radians = torch.deg2rad(torch.tensor(degrees, dtype=torch.float64))
    return torch.stack((radians.cos(), radians.sin()), 1)


def random_mask(*shape, seed=0):
    """Two fifths are true."""
    return torch.rand(*shape, generator=generator(seed)) < 0.4


def generator(seed=0):
    """A generator of its own."""
    return torch.Generator().manual_seed(seed)


def killed_and_resumed(monkeypatch, runs, task, method, due, run):
    """Runs in another run cache, is killed where `due` of the task's method's arguments holds, and is run again."""
    monkeypatch.setenv("UCVGL_RUNS", str(runs))
    real = getattr(task, method)

    def killed(self, *given):
        if due(*given):
            raise KeyboardInterrupt
        return real(self, *given)

    with monkeypatch.context() as patch:
        patch.setattr(task, method, killed)
        with pytest.raises(KeyboardInterrupt):
            run()
    return run()


def street(seed=0, step_m=15.0, name="street"):
    """A street with a database image every so many metres and a query 4 m behind each, of the same blocks with noise."""
    database, query = blocks(np.random.default_rng(seed))
    along = step_m * np.arange(N)
    where = [Positions(np.stack([along + shift, np.zeros(N)], 1), Metres("street")) for shift in (0.0, 4.0)]
    gallery, query = (image_set(p, f"{name}-{seed}-{k}", where[k]) for k, p in enumerate((database, query)))
    return Dataset(name, "all", query, gallery, Positives.within(*where[::-1], 25.0))


def truth(order=None):
    """The toy's pairs, and a held-out toy with its own."""
    pairs = Positives.one_each(np.arange(N) if order is None else order)
    return Parts(replace(toy(), positives=pairs), {"test": replace(toy(1, "held-out"), positives=pairs)})


def toy(seed=0, data_id="toy"):
    """Tiles of large blocks, top views of the same places with noise, panoramas that are anything."""
    rng = np.random.default_rng(seed)
    clean, noisy = blocks(rng)
    panorama = rng.integers(0, 256, (N, 3, SIZE, 2 * SIZE))
    sides = [image_set(pixels, f"{data_id}{k}") for k, pixels in enumerate((panorama, clean, noisy))]
    return Dataset("toy", "train", sides[0], sides[1], Positives.unknown(N), top_view=sides[2])
