"""What all methods share: where they compute, how many images at a time, what their weights are called."""

import torch

EMBED_BATCH = 128  # images embedded at a time
BEST = "best.safetensors"  # the weights a stage hands on; of the chosen epoch where one is chosen


def device() -> torch.device:
    """The GPU if there is one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")
