"""The training loop of all methods: its settings, AdamW and its learning rate, gradient caching, resume.

What is learnt is a `Task`: which items make an epoch, how a batch is loaded and embedded, and what its loss is. Every
step seeds its generators from (seed, epoch, step, process), so a resumed run goes on bit for bit, on a CPU at least.
The loop averages the gradients of several processes itself: DistributedDataParallel wants one forward pass of the whole
model a step, and tasks embed as they like. Batch norms see their own process's images."""

import hashlib
import math
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import ClassVar, Literal, NamedTuple, Protocol

import torch
from torch import Generator, Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint
from tqdm.auto import tqdm

from ucvgl import checkpoints, distributed
from ucvgl.checkpoints import prefixed, without
from ucvgl.errors import InputError, check_fields

CHECKPOINT = "training.safetensors"
LOOK_EVERY = 20  # steps between looks at the loss on a GPU: each waits for the GPU to finish
HALF = {"bf16": torch.bfloat16, "fp16": torch.float16}
Row = dict[str, float]


@dataclass(frozen=True)
class TrainingConfig:
    """How long, how fast and how exactly to train; the defaults are UCVGL's where it is known (official code)."""

    epochs: int = 40  # of the curriculum; its two stages before have 12 and 16; Sample4Geo 40
    batch_size: int = 128  # pairs, over all processes together
    learning_rate: float = 1e-4  # the highest; Sample4Geo 1e-3
    weight_decay: float = 0.01  # torch's default; never on biases, norms and scalars
    warmup_epochs: float = 0.0  # linear from 0; Sample4Geo 1
    min_lr_ratio: float = 0.0  # of learning_rate, at the end of the cosine
    clip_norm: float | None = None  # of the whole gradient; None: off
    clip_value: float | None = None  # of each value of the gradient; None: off; Sample4Geo 100
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"  # of the forward pass; fp16 needs CUDA; Sample4Geo mixed
    chunk: int | None = None  # images of a view embedded at a time (gradient caching); None: the batch at once
    prefetch: bool = False  # load the next batch in a thread while this one trains; worth it with a GPU
    epochs_before: int = 0  # of the same cosine, which this training skips; UCVGL's step 4: 12
    seed: int = 0

    def __post_init__(self) -> None:
        least = {"epochs": 1, "batch_size": 2, "epochs_before": 0, "seed": 0, "chunk": 1}
        counts = [
            (name, getattr(self, name), n) for name, n in least.items() if name != "chunk" or self.chunk is not None
        ]
        limits = ("clip_norm", self.clip_norm), ("clip_value", self.clip_value)
        check_fields(
            self, "training: ", "Choose another.",
            *((name, type(value) is int and value >= n, f"a whole number >= {n}") for name, value, n in counts),
            *((name, value is None or 0 < value < math.inf, "a number > 0, or None") for name, value in limits),
            ("learning_rate", 0 < self.learning_rate < math.inf, "a number > 0"),
            ("warmup_epochs", 0 <= self.warmup_epochs < self.epochs, f"0 to less than epochs ({self.epochs})"),
            ("precision", self.precision in ("fp32", *HALF), "fp32, bf16 or fp16"),
        )  # fmt: skip


def learning_rate(config: TrainingConfig, epochs_done: float) -> float:
    """Linear from 0 over the warm-up, then half a cosine down to min_lr_ratio, by step (UCVGL: by epoch), over the
    `epochs_before` and this training's, of which `epochs_done` are done."""
    epochs_done += config.epochs_before
    if epochs_done < config.warmup_epochs:
        return config.learning_rate * epochs_done / config.warmup_epochs
    whole = config.epochs_before + config.epochs
    done = (epochs_done - config.warmup_epochs) / (whole - config.warmup_epochs)
    ratio = config.min_lr_ratio + (1 - config.min_lr_ratio) * (1 + math.cos(math.pi * done)) / 2
    return config.learning_rate * ratio


def adamw(model: nn.Module, config: TrainingConfig) -> torch.optim.AdamW:
    """AdamW, as in all three papers, over what is not frozen, decaying matrices and kernels alone; fused on CUDA. A
    part of the model with an `lr_scale` learns at so many times the rate."""
    scales = {p: part.lr_scale for part in model.modules() if hasattr(part, "lr_scale") for p in part.parameters()}
    groups: dict[tuple[bool, float], list[nn.Parameter]] = {}
    for p in model.parameters():
        if p.requires_grad:
            plain = p.ndim < 2 or p.numel() == 1  # biases, norms, scalars such as the temperature
            groups.setdefault((plain, scales.get(p, 1.0)), []).append(p)
    settings = [{"params": groups[plain, scale], "weight_decay": 0.0 if plain else config.weight_decay, "lr_scale": scale}
                for plain, scale in sorted(groups)]  # fmt: skip
    fused = True if all(p.is_cuda for some in groups.values() for p in some) else None
    return torch.optim.AdamW(settings, lr=config.learning_rate, fused=fused)


class Batch(NamedTuple):
    """What is embedded, and what the loss needs beside it; the first dimension of every tensor is the batch."""

    inputs: tuple[Tensor, ...]  # images; stay in their process
    labels: tuple[Tensor, ...] = ()  # small; the loss gets those of all processes


class Task(Protocol):
    """What is learnt. Subclass it; `embed` and the last three methods may be left as they are. Randomness comes from
    the generators given (on the CPU). Epochs count from 0. Each of several processes has its own task."""

    kept: ClassVar[tuple[str, ...]] = ()  # attributes, tensors or None, that `state` has

    def order(self, epoch: int, model: nn.Module, generator: Generator) -> Tensor:
        """Int64 (n,): the items of this epoch, shuffled. A curriculum mines here, which may change what items mean."""

    def batch(self, items: Tensor, generator: Generator) -> Batch:
        """Loads and augments (b,) items; on any device. With `prefetch` it runs in a thread of its own."""

    def embed(self, model: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """(b, ...) inputs on the model's device -> (b, D) embeddings, under autocast; of two views each by its encoder."""
        return model.ground(inputs[0]), model.satellite(inputs[1])

    def loss(self, model: nn.Module, embeddings: tuple[Tensor, ...], labels: tuple[Tensor, ...]) -> Tensor:
        """A scalar from the embeddings and labels of all processes, which stand in the order of `order`."""

    def after_step(self, model: nn.Module, progress: float) -> None:
        """Follows each step of the optimiser, as a momentum encoder does; progress is the fraction of training done."""

    def state(self) -> dict[str, Tensor]:
        """What a resumed run needs to know of this task, between two epochs: mined labels, neighbours."""
        return {name: getattr(self, name) for name in self.kept if getattr(self, name) is not None}

    def load_state(self, state: dict[str, Tensor]) -> None:
        """Takes back what `state` gave; may be on another device."""
        for name, value in state.items():
            setattr(self, name, value.cpu())


def train(
    model: nn.Module, task: Task, config: TrainingConfig, folder: Path, *, name: str = "training",
    after: Path | None = None, keep_optimiser: bool = False,
    after_epoch: Callable[[int, nn.Module], dict[str, float]] | None = None, progress: bool = True,
) -> list[Row]:  # fmt: skip
    """Trains `model` in place, or goes on after the last whole epoch that `folder` has, or loads a finished training.

    The model is left on the process's device, in evaluation mode; `folder`, which all processes see, gets training.safetensors
    after each epoch. after: folder of a finished training of the same parameters that had `keep_optimiser`, whose optimiser
    this one goes on with. after_epoch: called in every process with the epoch and the model in evaluation mode, again where a
    run was killed meanwhile; its numbers join the epoch's row. name, progress: of the main process's bar.

    A row for each epoch: epoch (from 0), loss (mean over its steps), lr (of its last step), seconds, images_per_second,
    and what after_epoch returned. InputError: settings that this machine or model cannot do, an epoch of too few items,
    a loss or measure that is not finite, or a folder that holds a run with other settings or another model."""
    place = distributed.processes()
    on_gpu = place.device.type == "cuda"
    norms = any(isinstance(module, _BatchNorm) for module in model.modules())
    check_fields(
        config, "training: ", "Choose another; a backbone with layer norms may be trained in chunks.",
        ("precision", on_gpu or config.precision != "fp16", f"fp32 or bf16 on {place.device.type}"),
        ("batch_size", config.batch_size % place.num_processes == 0,
         f"a multiple of the {place.num_processes} processes, which share it"),
        ("chunk", config.chunk is None or not norms, "None for a model with batch norms, which see the whole batch"),
    )  # fmt: skip
    model.to(place.device)
    optimiser = adamw(model, config)
    learnt = [p for group in optimiser.param_groups for p in group["params"]]
    scaler = torch.amp.GradScaler(place.device.type, enabled=config.precision == "fp16")
    settings = asdict(config) | {"learnt parameters": sum(p.requires_grad for p in model.parameters())}
    rows = _resume(folder / CHECKPOINT, settings, model, task) if (folder / CHECKPOINT).is_file() else []
    optimised = folder if rows else after
    if optimised is not None and len(rows) < config.epochs:
        header, tensors = checkpoints.read(optimised / CHECKPOINT)
        checkpoints.load_optimiser(optimiser, without("optimiser.", tensors))
        scaler.load_state_dict(header["scaler"])
    distributed.copy_from_first_(checkpoints.weights_of(model).values())
    hidden = not (progress and place.is_main_process) or len(rows) == config.epochs
    # the caller's random numbers are as if none had been drawn here
    with tqdm(desc=name, unit="step", disable=hidden) as bar, torch.random.fork_rng([place.device] if on_gpu else []):
        for epoch in range(len(rows), config.epochs):
            begun, where, losses, images = time.perf_counter(), f"{name}: epoch {epoch}", [], 0
            order = _order(epoch, model, task, config, where)
            steps = max(1, len(order) // config.batch_size)  # fewer items than a batch make one smaller batch
            bar.set_description(f"{name} epoch {epoch + 1}/{config.epochs}", refresh=False)
            bar.total = bar.n + (config.epochs - epoch) * steps
            model.train()
            for step, batch in enumerate(_batches(task, config, order, epoch, steps)):
                _seed(config.seed, epoch, step, place.process_index)
                optimiser.zero_grad()
                inputs, labels = (tuple(v.to(place.device, non_blocking=True) for v in part) for part in batch)
                embeddings = distributed.gather(_embed(model, task, config, inputs))  # (batch_size, D) each
                loss = task.loss(model, embeddings, distributed.gather(labels))
                scaler.scale(loss).backward()
                distributed.average_([p.grad for p in learnt if p.grad is not None])
                scaler.unscale_(optimiser)
                if config.clip_norm is not None:
                    nn.utils.clip_grad_norm_(learnt, config.clip_norm)
                if config.clip_value is not None:
                    nn.utils.clip_grad_value_(learnt, config.clip_value)
                lr = learning_rate(config, epoch + (step + 0.5) / steps)
                for group in optimiser.param_groups:
                    group["lr"] = lr * group["lr_scale"]
                scaler.step(optimiser)
                scaler.update()
                task.after_step(model, (epoch + (step + 1) / steps) / config.epochs)
                losses.append(loss.detach())
                images += place.num_processes * sum(map(len, inputs))
                if not on_gpu or step % LOOK_EVERY == 0:
                    bar.set_postfix(loss=f"{_finite(f'{where}, step {step}, loss', losses[-1]):.3f}", refresh=False)
                bar.update()
            optimiser.zero_grad()
            distributed.average_([b for b in model.buffers() if b.is_floating_point()])  # running means and variances
            seconds = time.perf_counter() - begun
            mean = _finite(f"{where}, loss", sum(torch.stack(losses).tolist()) / len(losses))
            row = {"epoch": epoch, "loss": mean, "lr": lr, "seconds": seconds, "images_per_second": images / seconds}
            model.eval()
            _seed(config.seed, epoch, "after")
            for key, value in (after_epoch(epoch, model) if after_epoch else {}).items():
                row[key] = _finite(f"{where}, {key}", value)
            rows.append(row)
            if place.is_main_process:
                tensors = prefixed("model.", checkpoints.weights_of(model))
                if len(rows) < config.epochs or keep_optimiser:
                    tensors |= prefixed("optimiser.", checkpoints.optimiser_state(optimiser))
                    tensors |= prefixed("task.", task.state())
                header = {"settings": settings, "rows": rows, "scaler": scaler.state_dict()}
                checkpoints.write(folder / CHECKPOINT, tensors, header)
    place.wait_for_everyone()
    model.eval()
    return rows


def _resume(path: Path, settings: dict[str, object], model: nn.Module, task: Task) -> list[Row]:
    """Puts model and task back as they were saved, after checking that it is the same training; the rows of its epochs."""
    header, tensors = checkpoints.read(path)
    checkpoints.check_settings(path, header["settings"], settings)
    checkpoints.fill(path, checkpoints.weights_of(model), without("model.", tensors))
    task.load_state(without("task.", tensors))
    model.eval()  # as the epoch before left it: the next may begin with mining
    return header["rows"]


def _order(epoch: int, model: nn.Module, task: Task, config: TrainingConfig, where: str) -> Tensor:
    """The items of the epoch, the main process's in all: mining may differ in the last bit, and so in a label."""
    place = distributed.processes()
    _seed(config.seed, epoch, "order")
    order = task.order(epoch, model, _generator(config.seed, epoch, "order")).cpu()
    if place.num_processes > 1:
        state = {key: value.cpu() for key, value in task.state().items()}
        order, state = distributed.from_first((order, state))
        if not place.is_main_process:
            task.load_state(state)
    least = max(2, place.num_processes)
    if len(order) < least:
        todo = "Too few images or labels are left: loosen what selects them."
        raise InputError(where, expected=f"at least {least} items to contrast", found=len(order), todo=todo)
    return order


def _batches(task: Task, config: TrainingConfig, order: Tensor, epoch: int, steps: int) -> Iterator[Batch]:
    """This process's share of each batch of the epoch; with `prefetch` the next one loads in a thread meanwhile."""
    place = distributed.processes()
    own = min(config.batch_size, len(order)) // place.num_processes

    @torch.no_grad()
    def load(step: int) -> Batch:
        first = (step * place.num_processes + place.process_index) * own
        batch = task.batch(order[first : first + own], _generator(config.seed, epoch, step, place.process_index))
        if config.prefetch and place.device.type == "cuda":  # into memory that a GPU copies from while it computes
            return Batch(*(tuple(v.pin_memory() if v.device.type == "cpu" else v for v in part) for part in batch))
        return batch

    if not config.prefetch:
        yield from map(load, range(steps))
        return
    with ThreadPoolExecutor(1, initializer=torch.set_num_threads, initargs=(torch.get_num_threads(),)) as pool:
        coming = pool.submit(load, 0)
        for step in range(1, steps):
            batch, coming = coming.result(), pool.submit(load, step)
            yield batch
        yield coming.result()


def _embed(model: nn.Module, task: Task, config: TrainingConfig, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """(b, ...) inputs -> (b, D) embeddings in fp32, by a forward pass in the precision of the settings.

    With `chunk`, gradient caching (Gao, Zhang, Han, Callan 2021, section 3) by torch's activation checkpointing: one chunk's
    activations are in memory at a time, in the backward pass too, which embeds each again from the same random state. The
    gradient is that of the whole batch, for one more forward pass."""
    half = HALF.get(config.precision)

    def embed(*images: Tensor) -> tuple[Tensor, ...]:
        with torch.autocast(images[0].device.type, half, enabled=half is not None):
            embeddings = task.embed(model, images)
        return tuple(e.float() if e.dtype in HALF.values() else e for e in embeddings)

    if config.chunk is None:
        return embed(*inputs)
    chunks = zip(*(value.split(config.chunk) for value in inputs), strict=True)
    parts = [checkpoint(embed, *rows, use_reentrant=False) for rows in chunks]
    return tuple(torch.cat(part) for part in zip(*parts, strict=True))  # (b, D) each


def _finite(where: str, value: Tensor | float) -> float:
    if not math.isfinite(value):
        todo = "Lower learning_rate, set clip_norm, or use bf16 or fp32; the last whole epoch is kept."
        raise InputError(where, expected="a finite number", found=float(value), todo=todo)
    return float(value)


def _number(*key: int | str) -> int:
    """A 64-bit number for a place in the run, unrelated from one place to the next."""
    return int.from_bytes(hashlib.blake2b(repr(key).encode(), digest_size=8).digest())


def _generator(*key: int | str) -> Generator:
    return Generator().manual_seed(_number("data", *key))


def _seed(*key: int | str) -> None:
    """Seeds torch's own generators on all devices, from which dropout and drop path draw."""
    torch.manual_seed(_number("model", *key))
