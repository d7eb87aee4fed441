"""The run cache: a stage, which is a computation with settings on a data set, is run once and loaded after that.

Its folder runs/<stage>-<hash of settings and data> holds config.json, result.json, and whatever the stage wrote. Until the
stage is done it has another name, `.<stage>-<hash>.partial`, and outlives a killed run so that training in it resumes.
"""

import hashlib
import json
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from ucvgl import paths
from ucvgl.distributed import from_first, processes
from ucvgl.errors import InputError
from ucvgl.lab.results import device, trained_on
from ucvgl.paths import plain, replace_folder, waiting_for, write_json

FORMAT = 1  # of the folder; a new one makes every stage run again
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
    """All that tells one run of a stage from another; no version of a package is in it, nor a device.

    config: a frozen dataclass, nested if need be. data_id: names all else that the stage reads.
    """
    settings = {"settings_type": type(config).__name__, "settings": plain(asdict(config))}
    return {"format": FORMAT, "stage": stage, "data_id": data_id, **settings}


def stage_folder(key: dict[str, Any]) -> Path:
    """Where a stage keeps its results; need not exist."""
    text = json.dumps(key, sort_keys=True, separators=(",", ":"))
    return paths.runs() / f"{key['stage']}-{hashlib.sha256(text.encode()).hexdigest()[:12]}"


def run_stage(stage: str, config: Any, data_id: str, compute: Callable[[Path], dict[str, Any]]) -> StageResult:
    """Loads the stage if its folder is complete, otherwise runs it; a second process waits for the first and loads.

    `compute` gets the folder to write to, which after a kill still has what was written before, and returns what goes into
    result.json: finite numbers, texts, lists and dictionaries. In several processes (torchrun) all train in it together, and
    the first one's result counts. InputError: the folder is damaged, or an unfinished one has other settings.
    """
    key, place = stage_key(stage, config, data_id), processes()
    folder = stage_folder(key)
    partial, mutex = (folder.with_name(f".{folder.name}.{end}") for end in ("partial", "lock"))
    first = place.is_main_process
    with waiting_for(mutex, f"another process runs {folder.name}") if first else nullcontext():
        resumed = (partial / CONFIG).exists()
        if first and not folder.exists():
            if resumed:
                _read(partial / CONFIG, lambda found: found == key)
            write_json(partial / CONFIG, key)
        # the main process's answer, once it has the lock: on a shared file system the others may see a folder later
        loaded = from_first(folder.exists())
        if not loaded:
            begun = time.perf_counter()
            numbers = compute(partial)
            place.wait_for_everyone()
            if first:
                seconds = time.perf_counter() - begun
                result = {"seconds": seconds, "resumed": resumed, "device": device(), "numbers": numbers}
                write_json(partial / RESULT, result)
                replace_folder(partial, folder)
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
    raise InputError(path.parent, expected=expected, found=f"{path.name}: {found}", todo=todo)
