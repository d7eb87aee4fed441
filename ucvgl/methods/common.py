"""What all methods share: where they compute, how many images at a time, what their weights are called."""

from pathlib import Path

import torch
from torch import Tensor

from ucvgl import distributed
from ucvgl.data.container import ArrayImages, Dataset
from ucvgl.encoders import Encoder, TwoViewEncoder, embed, open_model

# images embedded at a time; so few stay in a processor's cache: measured 2.6 times as fast as 128 on a CPU, 48 x 96 px
EMBED_BATCH = 128 if torch.cuda.is_available() else 16
BEST = "best.safetensors"  # the weights a stage hands on; of the chosen epoch where one is chosen


def device() -> torch.device:
    """The GPU if there is one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def embed_all(encoder: Encoder, images: ArrayImages) -> Tensor:
    """(N, D) descriptors of all images; of several processes each embeds a part, and all get the whole."""
    place, batches = distributed.processes(), torch.arange(len(images)).split(EMBED_BATCH)
    first, last = (len(batches) * k // place.num_processes for k in (place.process_index, place.process_index + 1))
    return distributed.joined(embed(encoder, (images[rows] for rows in batches[first:last])))


def trained(folder: Path) -> TwoViewEncoder:
    """The encoders that a stage left in its folder, on the GPU if there is one, channels last, in evaluation mode."""
    return open_model(folder / BEST).to(device(), memory_format=torch.channels_last).eval()


def describe(model: TwoViewEncoder, test: Dataset) -> tuple[Tensor, Tensor]:
    """Descriptors of all queries, (N, D), and of the gallery, (M, D)."""
    query, gallery = (model.satellite, model.ground) if test.swapped else (model.ground, model.satellite)
    return embed_all(query, test.query), embed_all(gallery, test.gallery)
