"""Toy images that a small encoder learns from in seconds, and what the tests of several stages share."""

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from ucvgl.data.container import ArrayImages, Dataset, Positives
from ucvgl.encoders import EncoderConfig
from ucvgl.methods.common import BEST

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


def toy(seed=0, data_id="toy"):
    """Tiles of large blocks, top views of the same places with noise, panoramas that are anything."""
    rng = np.random.default_rng(seed)
    clean, noisy = blocks(rng)
    panorama = rng.integers(0, 256, (N, 3, SIZE, 2 * SIZE))
    sides = [image_set(pixels, f"{data_id}{k}") for k, pixels in enumerate((panorama, clean, noisy))]
    return Dataset("toy", "train", sides[0], sides[1], Positives.unknown(N), top_view=sides[2])
