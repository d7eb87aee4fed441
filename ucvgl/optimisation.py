"""How long and how fast to train: the settings, the optimiser (AdamW, as all three papers) and its learning rate.

The learning rate follows half a cosine by step (UCVGL: by epoch), after a linear warm-up.
"""

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn

from ucvgl.errors import InputError

PRECISIONS = ("fp32", "bf16", "fp16")


@dataclass(frozen=True)
class TrainingConfig:
    """How long, how fast and how exactly to train; the defaults are UCVGL's where it is known (official code)."""

    epochs: int = 40  # of the curriculum; its two stages before have 12 and 16; Sample4Geo 40
    batch_size: int = 128  # pairs, over all processes together
    learning_rate: float = 1e-4  # the highest; Sample4Geo 1e-3
    weight_decay: float = 0.01  # torch's default; never on biases, norms and scalars
    warmup_epochs: float = 0.0  # linear from 0; Sample4Geo 1
    min_lr_share: float = 0.0  # of learning_rate, at the end of the cosine
    clip_norm: float | None = None  # of the whole gradient; None: off (Sample4Geo clips each value at 100)
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"  # of the forward pass; fp16 needs CUDA; Sample4Geo mixed
    chunk: int | None = None  # images of a view embedded at a time, by gradient caching; None: the batch at once
    checkpoint_steps: int | None = None  # steps between checkpoints inside an epoch; None: at each epoch's end alone
    prefetch: bool = False  # load the next batch in a thread while this one trains; worth it with a GPU
    seed: int = 0

    def __post_init__(self) -> None:
        def check(name: str, right: bool, expected: str) -> None:
            if not right:
                raise InputError(
                    f"training: {name}", expected=expected, found=repr(getattr(self, name)), todo="Choose another."
                )

        for name, least in (("epochs", 1), ("batch_size", 2), ("chunk", 1), ("checkpoint_steps", 1), ("seed", 0)):
            value = getattr(self, name)
            optional = name in ("chunk", "checkpoint_steps")
            whole = isinstance(value, int) and not isinstance(value, bool) and value >= least
            check(name, whole or (optional and value is None), f"a whole number >= {least}{' or None' * optional}")
        check("learning_rate", 0 < self.learning_rate < math.inf, "a number > 0")
        check("weight_decay", 0 <= self.weight_decay < math.inf, "a number >= 0")
        check("warmup_epochs", 0 <= self.warmup_epochs < self.epochs, f"0 to less than epochs ({self.epochs})")
        check("min_lr_share", 0 <= self.min_lr_share <= 1, "0 to 1")
        check("clip_norm", self.clip_norm is None or 0 < self.clip_norm < math.inf, "a number > 0, or None")
        check("precision", self.precision in PRECISIONS, "fp32, bf16 or fp16")


def learning_rate(config: TrainingConfig, epochs_done: float) -> float:
    """Linear from 0 over the warm-up, then half a cosine down to min_lr_share of the highest."""
    if epochs_done < config.warmup_epochs:
        return config.learning_rate * epochs_done / config.warmup_epochs
    part = (epochs_done - config.warmup_epochs) / (config.epochs - config.warmup_epochs)
    share = config.min_lr_share + (1 - config.min_lr_share) * (1 + math.cos(math.pi * part)) / 2
    return config.learning_rate * share


def adamw(model: nn.Module, config: TrainingConfig) -> torch.optim.AdamW:
    """AdamW over what is not frozen, decaying matrices and kernels alone; InputError if everything is frozen.

    On CUDA in one kernel for all parameters; elsewhere as torch has it by default.
    """
    learnt = [p for p in model.parameters() if p.requires_grad]
    if not learnt:
        raise InputError("model", expected="parameters to learn", found="none", todo="Unfreeze some of them.")
    plain = [p for p in learnt if p.ndim < 2 or p.numel() == 1]  # biases, norms, scalars such as the temperature
    decayed = [p for p in learnt if not (p.ndim < 2 or p.numel() == 1)]
    groups = [{"params": decayed, "weight_decay": config.weight_decay}, {"params": plain, "weight_decay": 0.0}]
    fused = True if all(p.is_cuda for p in learnt) else None
    return torch.optim.AdamW([group for group in groups if group["params"]], lr=config.learning_rate, fused=fused)
