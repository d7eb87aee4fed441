"""Training steps of Sample4Geo: the official loop and model beside `training.train`, on one batch again and again."""

import torch
from comparison import Pair, Row, Sizes, Verdict, verdict
from official import Clone
from training_steps import method, official_loop, one_batch, trained

from ucvgl.augment import to_float
from ucvgl.encoders import EncoderConfig
from ucvgl.methods.common import device
from ucvgl.methods.sample4geo import new_model
from ucvgl.training import TrainingConfig

LEARNING_RATE = 1e-4


def training_step(clone: Clone, sizes: Sizes) -> Pair:
    """Both loops from the same weights; each returns when its steps ended, and its mean loss."""
    cuda, shape, steps = torch.cuda.is_available(), (sizes.image_px, sizes.image_px), sizes.steps + 1
    torch.manual_seed(0)
    theirs = clone.get("sample4geo.model", "TimmModel")(sizes.model, pretrained=False, img_size=sizes.image_px)
    officially_trained = official_loop(clone)
    # theirs is mixed precision by autocast, which does nothing on a CPU
    training = TrainingConfig(epochs=1, batch_size=sizes.train_batch, learning_rate=LEARNING_RATE, weight_decay=0.0,
                              min_lr_ratio=1.0, precision="fp16" if cuda else "fp32")  # fmt: skip
    config = method(EncoderConfig(sizes.model, pretrained="none", pooling="head", image_px=shape), training)
    ours = new_model(config)
    ours.ground.backbone.load_state_dict(theirs.model.state_dict())
    theirs, ours = theirs.to(device()), ours.to(device())
    given = one_batch(sizes.train_batch, sizes.image_px, steps)
    mean, std = ours.ground.mean, ours.ground.std
    normal = [(to_float(side[: sizes.train_batch]) - mean) / std for side in (given.query, given.gallery)]

    def official() -> tuple[list[float], float]:
        return officially_trained(theirs, normal, steps, None, lr=LEARNING_RATE, weight_decay=0.0)

    def own() -> tuple[list[float], float]:
        task, loss = trained(ours, given, config)
        return task.stamps, loss

    def agree(a: tuple[list[float], float], b: tuple[list[float], float]) -> Verdict:
        what = f"mean loss of {steps} steps, relative ({a[1]:.4f})"
        return verdict(abs(a[1] - b[1]) / a[1], 1e-2 if cuda else 1e-3, what)

    text = f"{sizes.model}, {sizes.train_batch} pairs of {sizes.image_px}x{sizes.image_px}"
    return Pair(text, official, own, agree, lambda found: (found[0][-1] - found[0][0]) / sizes.steps, device().type)


ROWS = [
    Row("training step", "Sample4Geo", "trainer.train, TimmModel, InfoNCE", training_step,
        "same weights, images in memory, AdamW without decay, no clipping; fp32 on a CPU, fp16 on a GPU; ours normalises the "
        "images in the step")
]  # fmt: skip
