"""How long and how fast to train: the settings, the optimiser (AdamW, as all three papers) and its learning rate.

The learning rate follows half a cosine by step (UCVGL: by epoch), after a linear warm-up.

Gradients of a loss over a whole batch of embeddings, with only a few images' activations in memory at a time.

Gradient caching (Gao, Zhang, Han, Callan 2021, 'Scaling deep contrastive learning batch size under memory limited
setup', section 3): embed all chunks without a graph; differentiate the loss by the embeddings; embed each chunk again,
with a graph, from the same random state, and send its rows of that gradient back through it. The result is the gradient
of the whole batch, for the price of one more forward pass.

Batch normalisation is the exception: in training it normalises by the statistics of the chunk, not of the batch. Its
running statistics are updated once for each chunk, in the second pass alone.

One training loop: mixed precision, gradient caching, several processes, resume after a kill, progress, metrics.

What is learnt is a `Task`: which items make an epoch, how a batch is loaded, embedded, and what it costs. The loop
knows nothing of views or labels.

Nothing random is saved: every step seeds its own generators from (seed, epoch, step, process), so a resumed run goes on
bit for bit as if it had never stopped, on a CPU at least; GPUs may sum in another order from run to run.

Parameter gradients are averaged over the processes by the loop itself, not by DistributedDataParallel, which allows
for neither several forward passes a step nor gradient caching. Batch norms see their own process's images.
"""

import hashlib
import json
import math
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol

import torch
from torch import Generator, Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from tqdm.auto import tqdm

from ucvgl import checkpoints
from ucvgl.distributed import Place, average_, copy_from_first_, from_first, gather, processes
from ucvgl.errors import InputError
from ucvgl.results import write_text

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


Embed = Callable[[tuple[Tensor, ...]], tuple[Tensor, ...]]
Loss = Callable[[tuple[Tensor, ...]], Tensor]


def backward(embed: Embed, inputs: tuple[Tensor, ...], loss: Loss, scale: Loss | None = None) -> Tensor:
    """One forward and one backward pass over the whole batch: what `cached_backward` must equal.

    Args:
        embed: (b, ...) inputs -> (b, D) embeddings, any number of each.
        inputs: tensors of one first dimension B.
        loss: (B, D) embeddings -> a scalar.
        scale: of the loss before the backward pass, as torch's GradScaler gives it; None leaves it as it is.

    Returns:
        the loss, without its graph; gradients are added to the parameters' `.grad`.
    """
    value = loss(embed(inputs))
    (scale(value) if scale else value).backward()
    return value.detach()


def cached_backward(
    embed: Embed, inputs: tuple[Tensor, ...], loss: Loss, scale: Loss | None = None, *, chunk: int, model: nn.Module
) -> Tensor:
    """As `backward`, with the activations of `chunk` rows held at a time.

    Args:
        embed: as in `backward`; its rows must not depend on each other.
        inputs: as in `backward`.
        loss: as in `backward`; computed once, its own parameters get their gradient as ever.
        scale: as in `backward`.
        chunk: rows embedded at a time, at least 1.
        model: the model in `embed`, whose batch norms must not update twice.

    Raises:
        InputError: a chunk below 1.
    """
    if chunk < 1:
        raise InputError("chunk", expected="at least 1 image", found=chunk, todo="Give None for the whole batch.")
    if chunk >= len(inputs[0]):
        return backward(embed, inputs, loss, scale)
    device = inputs[0].device
    rows = [slice(start, start + chunk) for start in range(0, len(inputs[0]), chunk)]
    states, parts = [], []
    with torch.no_grad(), _running_statistics_kept(model):
        for row in rows:
            states.append(_random_state(device))
            parts.append(embed(tuple(value[row] for value in inputs)))
    leaves = tuple(torch.cat(part).requires_grad_() for part in zip(*parts, strict=True))  # (B, D) each
    value = loss(leaves)
    (scale(value) if scale else value).backward()
    after = _random_state(device)
    for row, state in zip(rows, states, strict=True):
        _set_random_state(device, state)
        embeddings = embed(tuple(value[row] for value in inputs))
        pairs = [(e, leaf.grad[row]) for e, leaf in zip(embeddings, leaves, strict=True) if _learns(e, leaf)]
        if pairs:
            torch.autograd.backward(*zip(*pairs, strict=True))
    _set_random_state(device, after)
    return value.detach()


def _learns(embedding: Tensor, leaf: Tensor) -> bool:
    """Whether there is a way from the loss to the parameters: not for a frozen encoder, nor for an unused output."""
    return embedding.requires_grad and leaf.grad is not None


def _random_state(device: torch.device) -> tuple[Tensor, ...]:
    """The states of torch's own generators, which dropout and drop path draw from."""
    state = (torch.get_rng_state(),)
    return (*state, torch.get_device_module(device).get_rng_state()) if device.type != "cpu" else state


def _set_random_state(device: torch.device, state: tuple[Tensor, ...]) -> None:
    torch.set_rng_state(state[0])
    if device.type != "cpu":
        torch.get_device_module(device).set_rng_state(state[1])


@contextmanager
def _running_statistics_kept(model: nn.Module) -> Iterator[None]:
    """Batch norms in training normalise as ever, but leave their running mean and variance alone."""
    norms = [m for m in model.modules() if isinstance(m, _BatchNorm) and m.training and m.track_running_stats]
    for norm in norms:
        norm.track_running_stats = False
    try:
        yield
    finally:
        for norm in norms:
            norm.track_running_stats = True


CHECKPOINT, WEIGHTS, METRICS = "checkpoint.safetensors", "weights.safetensors", "metrics.jsonl"
LOSSES_HELD = 20  # losses left on a GPU before they are looked at: each look waits for it
DIVERGED = "Lower learning_rate, set clip_norm, or use bf16 or fp32; the last good checkpoint stays."
HALF = {"bf16": torch.bfloat16, "fp16": torch.float16}


class Batch(NamedTuple):
    """What is embedded, and what the loss needs beside it; the first dimension of every tensor is the batch."""

    inputs: tuple[Tensor, ...]  # images; stay in their process
    labels: tuple[Tensor, ...] = ()  # small; the loss gets those of all processes


class Task(Protocol):
    """What is learnt. Subclass it; the last three methods may be left as they are.

    Randomness comes from the generators given (on the CPU). Epochs count from 0. In several processes each has a task
    of its own, made from the same settings.
    """

    def order(self, epoch: int, model: nn.Module, generator: Generator) -> Tensor:
        """Int64 (n,): the items of this epoch, shuffled. A curriculum mines here, which may change what items mean."""
        ...

    def batch(self, items: Tensor, generator: Generator) -> Batch:
        """Loads and augments (b,) items; on any device. With `prefetch` it runs in a thread of its own."""
        ...

    def embed(self, model: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """(b, ...) inputs on the model's device -> (b, D) embeddings; under autocast if precision is not fp32."""
        ...

    def loss(self, model: nn.Module, embeddings: tuple[Tensor, ...], labels: tuple[Tensor, ...]) -> Tensor:
        """A scalar from the embeddings and labels of all processes, which stand in the order of `order`."""
        ...

    def after_step(self, model: nn.Module, progress: float) -> None:
        """Follows each step of the optimiser, as a momentum encoder does; progress is the part of training done."""
        return

    def state(self) -> dict[str, Tensor]:
        """What a resumed run needs to know of this task: mined labels, a queue."""
        return {}

    def load_state(self, state: dict[str, Tensor]) -> None:
        """Takes back what `state` gave; may be on another device."""
        return


Row = dict[str, float]


@dataclass
class _Position:
    """How far training has come: `step` steps of `epoch` are done."""

    epoch: int = 0
    step: int = 0
    loss: float = 0.0  # summed over the steps of this epoch
    seconds: float = 0.0  # of this epoch, mining included
    images: int = 0  # of this epoch, over all processes
    rows: list[Row] = field(default_factory=list)  # of the epochs before
    order: Tensor | None = None  # of this epoch; None: not yet asked for


@dataclass(frozen=True)
class _Run:
    """What every part of the loop needs."""

    model: nn.Module
    task: Task
    config: TrainingConfig
    folder: Path
    name: str
    place: Place
    optimiser: torch.optim.AdamW
    scaler: torch.amp.GradScaler


# -------------------------------------------------------------------------------------------------------------- the loop


def train(
    model: nn.Module,
    task: Task,
    config: TrainingConfig,
    folder: Path,
    *,
    name: str = "training",
    after_epoch: Callable[[int, nn.Module], dict[str, float]] | None = None,
    progress: bool = True,
) -> list[Row]:
    """Trains `model` in place, or goes on where the folder's last checkpoint stands, or loads its finished weights.

    Args:
        model: moved to the process's device; left there in evaluation mode.
        task: what is learnt.
        config: how.
        folder: gets metrics.jsonl, checkpoint.safetensors while training, weights.safetensors at the end; on a file
            system that all processes see.
        name: for the progress bar and messages.
        after_epoch: called in every process with the epoch and the model in evaluation mode; the numbers it returns
            join the epoch's row. When a run is resumed it is called again for the last whole epoch.
        progress: show a bar, in the first process.

    Returns:
        a row for each epoch: epoch (from 0), loss (mean over its steps), lr (of its last step), seconds,
        images_per_second, and what after_epoch returned.

    Raises:
        InputError: a precision or batch size this machine cannot do, an epoch of too few items, a loss or measure that
            is not finite, or a folder that holds a run with other settings or another model.
    """
    place = processes()
    _check_place(config, place)
    model.to(place.device)
    scaler = torch.amp.GradScaler(place.device.type, enabled=config.precision == "fp16")
    run = _Run(model, task, config, folder, name, place, adamw(model, config), scaler)
    finished = (folder / WEIGHTS).is_file()
    at = _load(run, finished) if finished or (folder / CHECKPOINT).is_file() else _Position()
    copy_from_first_(checkpoints.weights_of(model).values(), place)
    first = place.is_main_process
    gpu = [place.device] if place.device.type == "cuda" else []
    bar = tqdm(desc=name, unit="step", disable=finished or not progress or not first)
    with bar, torch.random.fork_rng(gpu):  # the caller's random numbers are as if none had been drawn
        for epoch in range(at.epoch, config.epochs):
            lr = _train_epoch(run, at, bar)
            model.eval()
            _seed(config.seed, epoch, "after")
            row = {"epoch": epoch, "loss": at.loss / at.step, "lr": lr, "seconds": at.seconds}
            row["images_per_second"] = at.images / at.seconds
            for key, value in (after_epoch(epoch, model) if after_epoch else {}).items():
                row[key] = float(value.detach() if isinstance(value, Tensor) else value)
                _check_finite(f"{name}: epoch {epoch}, {key}", row[key], "Look at what after_epoch measures.")
            at = _Position(epoch + 1, rows=[*at.rows, row])
            if first:
                _write_metrics(folder, at.rows)
        if first and not finished:
            checkpoints.write(folder / WEIGHTS, checkpoints.weights_of(model), _header(run, at))
    if first:
        (folder / CHECKPOINT).unlink(missing_ok=True)
    place.wait_for_everyone()
    model.eval()
    return at.rows


def _train_epoch(run: _Run, at: _Position, bar: tqdm) -> float:
    """The steps of an epoch that are left to do, with a checkpoint at its end; returns the last learning rate."""
    model, task, config, place, scaler = run.model, run.task, run.config, run.place, run.scaler
    begun = time.perf_counter() - at.seconds
    if at.order is None:
        at.order = _order(run, at.epoch)
    where = f"{run.name}: epoch {at.epoch}"
    size, steps = _batch_size(at.order, config, place, where)
    bar.set_description(f"{run.name} epoch {at.epoch + 1}/{config.epochs}", refresh=False)
    bar.total = bar.n + (config.epochs - at.epoch) * steps - at.step
    model.train()
    parameters = [p for group in run.optimiser.param_groups for p in group["params"]]
    held: list[Tensor] = []
    with closing(_batches(run, at, size, steps)) as batches:
        for step, batch in enumerate(batches, at.step):
            _seed(config.seed, at.epoch, step, place.process_index)
            run.optimiser.zero_grad()
            held.append(_backward(run, batch))
            average_([p.grad for p in parameters if p.grad is not None], place)
            if config.clip_norm is not None:
                scaler.unscale_(run.optimiser)
                nn.utils.clip_grad_norm_(parameters, config.clip_norm)
            for group in run.optimiser.param_groups:
                group["lr"] = learning_rate(config, at.epoch + (step + 0.5) / steps)
            scaler.step(run.optimiser)
            scaler.update()
            task.after_step(model, (at.epoch + (step + 1) / steps) / config.epochs)
            at.step = step + 1
            at.images += place.num_processes * sum(len(images) for images in batch.inputs)
            due = at.step == steps or (config.checkpoint_steps is not None and at.step % config.checkpoint_steps == 0)
            if due or len(held) == LOSSES_HELD or place.device.type == "cpu":
                at.loss += _settled(held, place, where, at.step)
                bar.set_postfix(loss=f"{at.loss / at.step:.3f}", refresh=False)
            bar.update()
            at.seconds = time.perf_counter() - begun
            if due:
                average_([b for b in model.buffers() if b.is_floating_point()], place)  # running means, variances
                _save(run, at)
    run.optimiser.zero_grad()
    return learning_rate(config, at.epoch + (steps - 0.5) / steps)


def _order(run: _Run, epoch: int) -> Tensor:
    """The items of the epoch, the first process's in all: mining may differ in the last bit, and so in a label."""
    _seed(run.config.seed, epoch, "order")
    order = run.task.order(epoch, run.model, _generator(run.config.seed, epoch, "order")).cpu()
    if run.place.num_processes > 1:
        agreed = from_first({"order": order} | checkpoints.prefixed("task.", run.task.state()), run.place)
        order = agreed["order"]
        if not run.place.is_main_process:
            run.task.load_state(checkpoints.without("task.", agreed))
    return order


def _backward(run: _Run, batch: Batch) -> Tensor:
    """Adds the gradients of one batch to the parameters; returns the loss, on the device."""
    place, config = run.place, run.config
    inputs, labels = (tuple(value.to(place.device, non_blocking=True) for value in part) for part in batch)
    labels = gather(labels, place)

    def embed(images: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        half = HALF.get(config.precision)
        with torch.autocast(place.device.type, half, enabled=half is not None):
            embeddings = run.task.embed(run.model, images)
        return tuple(e.float() if e.dtype in HALF.values() else e for e in embeddings)

    def loss(embeddings: tuple[Tensor, ...]) -> Tensor:
        return run.task.loss(run.model, gather(embeddings, place), labels)

    if config.chunk is None:
        return backward(embed, inputs, loss, run.scaler.scale)
    return cached_backward(embed, inputs, loss, run.scaler.scale, chunk=config.chunk, model=run.model)


def _batches(run: _Run, at: _Position, size: int, steps: int) -> Iterator[Batch]:
    """This process's part of each batch that is left in the epoch; the next one loading meanwhile, if so set."""
    order, epoch, rank = at.order, at.epoch, run.place.process_index
    own = size // run.place.num_processes

    @torch.no_grad()
    def load(step: int) -> Batch:
        first = step * size + rank * own
        batch = run.task.batch(order[first : first + own], _generator(run.config.seed, epoch, step, rank))
        return _pinned(batch) if run.config.prefetch and run.place.device.type == "cuda" else batch

    left = range(at.step, steps)
    if not run.config.prefetch:
        yield from map(load, left)
        return
    with ThreadPoolExecutor(1, initializer=torch.set_num_threads, initargs=(torch.get_num_threads(),)) as pool:
        coming = None
        for step in left:
            batch = coming.result() if coming else load(step)
            coming = pool.submit(load, step + 1) if step + 1 < steps else None
            yield batch


def _pinned(batch: Batch) -> Batch:
    """The batch in memory that a GPU copies from while it computes; what lies on a device already stays there."""
    return Batch(*(tuple(v.pin_memory() if v.device.type == "cpu" else v for v in part) for part in batch))


# ------------------------------------------------------------------------------------------------------ checks and seeds


def _check_place(config: TrainingConfig, place: Place) -> None:
    if config.precision == "fp16" and place.device.type != "cuda":
        raise InputError(
            "training: precision", expected=f"fp32 or bf16 on {place.device.type}", found="fp16", todo="Use bf16 or fp32."
        )  # fmt: skip
    if config.batch_size % place.num_processes:
        raise InputError(
            "training: batch_size", expected=f"a multiple of the {place.num_processes} processes",
            found=config.batch_size, todo="It counts the pairs of all processes together.",
        )  # fmt: skip


def _batch_size(order: Tensor, config: TrainingConfig, place: Place, where: str) -> tuple[int, int]:
    """Pairs in each batch and the number of batches; fewer items than a batch make one smaller batch."""
    if order.ndim != 1 or order.dtype != torch.int64:
        raise InputError(
            where, expected="items as int64 (n,)", found=f"{order.dtype} {tuple(order.shape)}", todo="Mend `order`."
        )
    least = max(2, place.num_processes)
    if len(order) < least:
        raise InputError(
            where, expected=f"at least {least} items to contrast", found=len(order),
            todo="Too few images or labels are left: loosen what selects them.",
        )  # fmt: skip
    size = min(config.batch_size, len(order) // place.num_processes * place.num_processes)
    return size, len(order) // size if size == config.batch_size else 1


def _settled(held: list[Tensor], place: Place, where: str, steps_done: int) -> float:
    """The sum of the losses held back, which it empties; InputError names the first that is not finite."""
    losses = torch.stack(held).float()
    average_([losses], place)
    values = losses.tolist()
    for step, value in enumerate(values, steps_done - len(held)):
        _check_finite(f"{where}, step {step}, loss", value, DIVERGED)
    held.clear()
    return sum(values)


def _check_finite(where: str, value: float, todo: str) -> None:
    if not math.isfinite(value):
        raise InputError(where, expected="a finite number", found=value, todo=todo)


def _number(*key: int | str) -> int:
    """A 64-bit number for a place in the run: the same on every machine, unrelated from one place to the next."""
    return int.from_bytes(hashlib.blake2b(repr(key).encode(), digest_size=8).digest())


def _generator(*key: int | str) -> Generator:
    return Generator().manual_seed(_number("data", *key))


def _seed(*key: int | str) -> None:
    """Seeds torch's own generators on all devices, from which dropout and drop path draw."""
    torch.manual_seed(_number("model", *key))


# -------------------------------------------------------------------------------------------------------------- the files


def _header(run: _Run, at: _Position) -> dict[str, Any]:
    figures = {key: value for key, value in vars(at).items() if key != "order"}
    return {"config": asdict(run.config), "position": figures, "scaler": run.scaler.state_dict()}


def _save(run: _Run, at: _Position) -> None:
    """The checkpoint, by the first process."""
    if run.place.is_main_process:
        tensors = checkpoints.prefixed("model.", checkpoints.weights_of(run.model))
        tensors |= checkpoints.prefixed("optimiser.", checkpoints.optimiser_state(run.model, run.optimiser))
        tensors |= checkpoints.prefixed("task.", run.task.state()) | {"order": at.order}
        checkpoints.write(run.folder / CHECKPOINT, tensors, _header(run, at))


def _load(run: _Run, finished: bool) -> _Position:
    """Puts everything back as it was saved, after checking that it is the same training."""
    path = run.folder / (WEIGHTS if finished else CHECKPOINT)
    header, tensors = checkpoints.read(path)
    checkpoints.check_config(path, header["config"], asdict(run.config))
    at = _Position(**header["position"])
    checkpoints.load_weights(path, run.model, tensors if finished else checkpoints.without("model.", tensors))
    if not finished:
        checkpoints.load_optimiser(path, run.model, run.optimiser, checkpoints.without("optimiser.", tensors))
        run.scaler.load_state_dict(header["scaler"])
        run.task.load_state(checkpoints.without("task.", tensors))
        at.order = tensors["order"]
    if run.place.is_main_process:
        _write_metrics(run.folder, at.rows)
    return at


def _write_metrics(folder: Path, rows: list[Row]) -> None:
    write_text(folder / METRICS, "".join(json.dumps(row) + "\n" for row in rows))
