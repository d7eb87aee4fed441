"""The methods' trainings in the run cache, by what each depends on: each is found there, resumed there, or run.

Their numbers are explained where they are computed, in the methods. `data` is unlabelled, `truth` for measures that choose nothing.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from ucvgl.data.container import Dataset, Parts
from ucvgl.distributed import processes
from ucvgl.heads import SslLoss
from ucvgl.lab.cache import StageResult, run_stage
from ucvgl.methods import curriculum as step_5
from ucvgl.methods import sample4geo, ucvgl, vg_ssl
from ucvgl.methods.common import device
from ucvgl.methods.pretraining_losses import WithLoss, intra_view_with
from ucvgl.sampling import NeighbourDraw


def translation(data: Dataset, config: ucvgl.Pretraining) -> StageResult:
    """UCVGL, step 2: the CycleGAN and the fake satellite images it makes; of several processes one trains it."""

    def compute(folder: Path) -> dict[str, Any]:
        return ucvgl.train_translation(data, config, folder) if processes().is_main_process else {}

    return run_stage("translation", config.translation, f"{data.digest()}-{config.projection}", compute)


def gan_folder(data: Dataset, config: ucvgl.Pretraining) -> Path | None:
    """Where the GAN that makes the fakes of step 4 stands, trained first if need be; None where none does."""
    return translation(data, config).folder if config.translation.kind == "cyclegan" else None


@dataclass(frozen=True)
class _IntraWith:  # as keys of folders have them: other names or fields, and all is trained again
    intra: ucvgl.Pretraining
    loss: SslLoss
    version: int


@dataclass(frozen=True)
class _HardCurriculum:
    steps: ucvgl.Curriculum
    draw: NeighbourDraw


def intra_view(data: Dataset, config: ucvgl.Pretraining | WithLoss) -> StageResult:
    """UCVGL, step 3, with its own loss or one of VG-SSL's."""
    if isinstance(config, WithLoss):
        key = _IntraWith(ucvgl.intra_key(config.start), config.loss, config.version)
        return run_stage("intra-view-with", key, data.digest(), partial(intra_view_with, data, config))
    return run_stage("intra-view", ucvgl.intra_key(config), data.digest(), partial(ucvgl.intra_view, data, config))


def pretrain(data: Dataset, config: ucvgl.Pretraining | WithLoss, truth: Parts) -> StageResult:
    """UCVGL, steps 2 to 4: the cold start. Its numbers are step 4's, and step 3's losses as "intra".

    Step 4 goes on with step 3's weights and optimiser; after one of VG-SSL's losses, whose model has heads, with its weights.
    """
    other = isinstance(config, WithLoss)
    start = config.start if other else config

    def compute(folder: Path) -> dict[str, Any]:
        first = None if start.intra is None else intra_view(data, config)
        model = ucvgl.new_model(start).to(device())
        if first is not None:
            ucvgl.go_on_with(model, first.folder)
        gan = None if start.cross is None else gan_folder(data, start)
        after = None if first is None or other else first.folder
        numbers = ucvgl.pretrain(model, data, start, truth, folder, after=after, gan=gan)
        return {"intra": [] if first is None else first.numbers["rows"]} | numbers

    return run_stage("cold-start-with" if other else "cross-view", config, _measured(data, truth), compute)


def curriculum(
    data: Dataset, config: ucvgl.Curriculum, truth: Parts, *, hard: NeighbourDraw | None = None
) -> StageResult:
    """UCVGL, step 5, on its cold start, which is run first if need be."""

    def compute(folder: Path) -> dict[str, Any]:
        before = pretrain(data, config.start, truth).folder if config.pretrained else None
        return step_5.curriculum(data, config, truth, folder, pretrained=before, hard=hard)

    key = config if hard is None else _HardCurriculum(config, hard)
    return run_stage("curriculum", key, _measured(data, truth), compute)


def _measured(data: Dataset, truth: Parts) -> str:
    """Names the images trained on, those tested on and the truth: some labels of it may be given."""
    names = [data.digest(), *(test.digest() for test in list(truth.tests.values())[:1])]
    names += [truth.train.positives.digest()] if truth.tests or truth.train.labelled else []
    return "+".join(names)


def supervise(given: Dataset, config: sample4geo.Sample4Geo, tests: Mapping[str, Dataset]) -> StageResult:
    """Sample4Geo."""
    compute = partial(sample4geo.supervise, given, config, tests)
    return run_stage("sample4geo", config, _with_tests(given, tests), compute)


def learn(given: Dataset, config: vg_ssl.VgSsl, tests: Mapping[str, Dataset]) -> StageResult:
    """VG-SSL, one loss."""
    return run_stage("vg-ssl", config, _with_tests(given, tests), partial(vg_ssl.learn, given, config, tests))


def _with_tests(given: Dataset, tests: Mapping[str, Dataset]) -> str:
    return f"{given.digest()}+{sorted((name, test.digest()) for name, test in tests.items())}"
