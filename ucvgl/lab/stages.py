"""The run cache, and the methods' trainings in it: a stage, a computation with settings on a data set, is run once, then loaded.

Its folder runs/<stage>-<hash of settings and data> holds config.json, result.json, and whatever the stage wrote. Until the
stage is done it is called `.<stage>-<hash>.partial`, and outlives a killed run so that training in it resumes. The numbers are
explained where they are computed, in the methods. `data` is unlabelled, `truth` for measures that choose nothing."""

import hashlib
import json
import time
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from tqdm import tqdm

from ucvgl import paths
from ucvgl.data.container import Dataset, Parts
from ucvgl.distributed import from_first, processes
from ucvgl.errors import InputError
from ucvgl.heads import SslLoss
from ucvgl.lab.results import device, trained_on
from ucvgl.lab.settings import asked_rows
from ucvgl.methods import curriculum as step_5
from ucvgl.methods import sample4geo, ucvgl, vg_ssl
from ucvgl.paths import plain, replace_folder, waiting_for, write_json
from ucvgl.sampling import NeighbourDraw

FORMAT = 1  # of the folder; a new one makes every stage run again
SMOKE_PAIRS = 8  # with ROWS=smoke: a batch of an epoch
CONFIG, RESULT = "config.json", "result.json"


@dataclass(frozen=True)
class StageResult:
    """A stage's folder and what it found."""

    folder: Path  # complete; not to be written to
    numbers: dict[str, Any]  # what the stage returned
    loaded: bool  # whether it was found complete
    seconds: float  # what its run took; if that was resumed, its last part
    resumed: bool  # whether that run went on from a killed one


def stage_key(stage: str, config: Any, data_id: str) -> dict[str, Any]:
    """All that tells one run of a stage from another: config, a frozen dataclass, nested if need be, and data_id, which names all
    else that the stage reads; no version of a package, nor a device."""
    settings = {"settings_type": type(config).__name__, "settings": plain(asdict(config))}
    return {"format": FORMAT, "stage": stage, "data_id": data_id, **settings}


def stage_folder(key: dict[str, Any]) -> Path:
    """Where a stage keeps its results; need not exist."""
    text = json.dumps(key, sort_keys=True, separators=(",", ":"))
    return paths.runs() / f"{key['stage']}-{hashlib.sha256(text.encode()).hexdigest()[:12]}"


def run_stage(stage: str, config: Any, data_id: str, compute: Callable[[Path], dict[str, Any]]) -> StageResult:
    """Loads the stage if its folder is complete, otherwise runs it; a second process waits for the first and loads. `compute` gets
    the folder to write to, which after a kill still has what was written before, and returns what goes into result.json: finite
    numbers, texts, lists and dictionaries. In several processes (torchrun) all train in it together, and the first one's result
    counts. InputError: the folder is damaged, or an unfinished one has other settings."""
    key, place = stage_key(stage, config, data_id), processes()
    folder = stage_folder(key)
    unfinished, mutex = (folder.with_name(f".{folder.name}.{end}") for end in ("partial", "lock"))
    first = place.is_main_process
    with waiting_for(mutex, f"another process runs {folder.name}") if first else nullcontext():
        resumed = (unfinished / CONFIG).exists()
        if first and not folder.exists():
            if resumed:
                _read(unfinished / CONFIG, lambda found: found == key)
            write_json(unfinished / CONFIG, key)
        # the main process's answer, once it has the lock: on a shared file system the others may see a folder later
        loaded = from_first(folder.exists())
        if not loaded:
            begun = time.perf_counter()
            numbers = compute(unfinished)
            place.wait_for_everyone()
            if first:
                seconds = time.perf_counter() - begun
                result = {"seconds": seconds, "resumed": resumed, "device": device(), "numbers": numbers}
                write_json(unfinished / RESULT, result)
                replace_folder(unfinished, folder)
            place.wait_for_everyone()
    _read(folder / CONFIG, lambda found: found == key)
    result = _read(folder / RESULT, lambda found: {"numbers", "seconds", "resumed"} <= {*found})
    found = StageResult(folder, result["numbers"], loaded, result["seconds"], result["resumed"])
    trained_on.update([result["device"]] if "device" in result else [])
    if first:
        took = f"ran in {found.seconds:.0f} s" + (", its last part after a stop" if found.resumed else "")
        tqdm.write(f"{folder.name}: loaded ({took})" if loaded else f"{folder.name}: {took}")
    return found


def _read(path: Path, right: Callable[[Any], bool]) -> Any:
    """The content of one of a stage's two files; InputError if it is damaged or not `right`."""
    try:
        if right(content := json.loads(path.read_text(encoding="utf-8"))):
            return content
        found = "settings that its name does not stand for, or no results"
    except (OSError, TypeError, ValueError) as error:
        found = f"{type(error).__name__}: {error}"
    expected, todo = f"a whole stage, with {CONFIG} and {RESULT}", "Delete the folder; the stage is then run again."
    raise InputError(path.parent, expected, f"{path.name}: {found}", todo)


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


def intra_view(data: Dataset, config: ucvgl.Pretraining | ucvgl.WithLoss) -> StageResult:
    """UCVGL, step 3, with its own loss or one of VG-SSL's."""
    if isinstance(config, ucvgl.WithLoss):
        key = _IntraWith(ucvgl.intra_key(config.start), config.loss, config.version)
        return run_stage("intra-view-with", key, data.digest(), partial(ucvgl.intra_view_with, data, config))
    return run_stage("intra-view", ucvgl.intra_key(config), data.digest(), partial(ucvgl.intra_view, data, config))


def pretrain(data: Dataset, config: ucvgl.Pretraining | ucvgl.WithLoss, truth: Parts) -> StageResult:
    """UCVGL, steps 2 to 4: the cold start. Its numbers are step 4's, and step 3's losses as "intra". Step 4 goes on with step 3's
    weights and optimiser; after one of VG-SSL's losses, whose model has heads, with its weights."""
    other = isinstance(config, ucvgl.WithLoss)
    start = config.start if other else config

    def compute(folder: Path) -> dict[str, Any]:
        first = None if start.intra is None else intra_view(data, config)
        model = ucvgl.new_model(start) if first is None else ucvgl.go_on_with(first.folder)
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
    if asked_rows() == "smoke":
        given = given.evenly(SMOKE_PAIRS)
    compute = partial(sample4geo.supervise, given, config, tests)
    return run_stage("sample4geo", config, _with_tests(given, tests), compute)


def learn(given: Dataset, config: vg_ssl.VgSsl, tests: Mapping[str, Dataset]) -> StageResult:
    """VG-SSL, one loss."""
    return run_stage("vg-ssl", config, _with_tests(given, tests), partial(vg_ssl.learn, given, config, tests))


def _with_tests(given: Dataset, tests: Mapping[str, Dataset]) -> str:
    return f"{given.digest()}+{sorted((name, test.digest()) for name, test in tests.items())}"
