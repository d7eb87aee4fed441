"""The run cache: a stage, which is a computation with settings on a data set, is run once and loaded after that.

Its folder runs/<stage>-<hash of settings and data> holds config.json, result.json, and whatever the stage wrote:
training.safetensors, metrics.jsonl. Until the stage is done it has another name, `.<stage>-<hash>.partial`, and outlives
a killed run so that training in it resumes.
"""

import hashlib
import json
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from ucvgl import paths
from ucvgl.distributed import from_first, processes
from ucvgl.errors import InputError
from ucvgl.lab.results import device, plain_settings, trained_on
from ucvgl.paths import replace_folder, waiting_for, write_json

FORMAT = 1  # of the folder; a new one makes every stage run again
CONFIG, RESULT = "config.json", "result.json"
ANEW = "Delete the folder; the stage is then run again."


@dataclass(frozen=True)
class StageResult:
    """A stage's folder and what it found."""

    folder: Path  # complete; not to be written to
    numbers: dict[str, Any]  # what the stage returned, as it comes back from JSON
    loaded: bool  # whether it was found complete
    seconds: float  # what its run took; if that was resumed, its last part
    resumed: bool  # whether that run went on from a killed one


def stage_key(stage: str, config: Any, data_id: str) -> dict[str, Any]:
    """All that tells one run of a stage from another; no version of a package is in it, nor a device.

    stage: its name. config: a frozen dataclass, nested if need be. data_id: names all else that the stage reads.
    """
    return {
        "format": FORMAT, "stage": stage, "data_id": data_id, "settings_type": type(config).__name__,
        "settings": plain_settings(config),
    }  # fmt: skip


def stage_folder(key: dict[str, Any]) -> Path:
    """Where a stage keeps its results; need not exist."""
    text = json.dumps(key, sort_keys=True, separators=(",", ":"))
    return paths.runs() / f"{key['stage']}-{hashlib.sha256(text.encode()).hexdigest()[:12]}"


def run_stage(
    stage: str, config: Any, data_id: str, compute: Callable[[Path], dict[str, Any]], *,
    say: Callable[[str], object] = tqdm.write,
) -> StageResult:  # fmt: skip
    """Loads the stage if its folder is complete, otherwise runs it; a second process waits for the first and loads.

    `compute` gets the folder to write to, which after a kill still has what was written before, and returns what goes into
    result.json: numbers, texts, lists and dictionaries of them. In several processes (torchrun) all call it and train in it
    together; the first one's result counts. `say` is given one line: whether the stage was loaded or run, and how long it took.
    InputError: the folder is damaged, an unfinished one has other settings, or the result has no form in JSON.
    """
    key = stage_key(stage, config, data_id)
    folder = stage_folder(key)
    partial = folder.with_name(f".{folder.name}.partial")
    place = processes()
    with ExitStack() as lock:
        if place.is_main_process:
            mutex = folder.with_name(f".{folder.name}.lock")
            lock.enter_context(waiting_for(mutex, f"another process runs {folder.name}"))
            resumed = (partial / CONFIG).exists() and not folder.exists()
            if resumed:
                _check_config(partial, key)
            elif not folder.exists():
                write_json(partial / CONFIG, key)
        # the main process's answer, once it has the lock: on a shared file system the others may see a folder later
        loaded = from_first(folder.exists())
        if not loaded:
            begun = time.perf_counter()
            numbers = compute(partial)
            place.wait_for_everyone()
            if place.is_main_process:
                seconds = time.perf_counter() - begun
                result = {"seconds": seconds, "resumed": resumed, "device": device(), "numbers": numbers}
                try:
                    write_json(partial / RESULT, result)
                except (TypeError, ValueError) as error:
                    expected, todo = "finite numbers, texts, lists and dictionaries", "Return plain values."
                    raise InputError(f"result of {folder.name}", expected=expected, found=error, todo=todo) from None
                replace_folder(partial, folder)
            place.wait_for_everyone()
    found = _load(folder, key, loaded)
    if place.is_main_process:
        took = f"in {found.seconds:.0f} s" + (", its last part after a stop" if found.resumed else "")
        say(f"{folder.name}: loaded (ran {took})" if loaded else f"{folder.name}: ran {took}")
    return found


def _load(folder: Path, key: dict[str, Any], loaded: bool) -> StageResult:
    _check_config(folder, key)
    try:
        result = json.loads((folder / RESULT).read_text(encoding="utf-8"))
        trained_on.update([result["device"]] if "device" in result else [])
        return StageResult(folder, dict(result["numbers"]), loaded, float(result["seconds"]), bool(result["resumed"]))
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise _damaged(folder, f"{RESULT}: {type(error).__name__}: {error}") from None


def _check_config(folder: Path, key: dict[str, Any]) -> None:
    try:
        then = dict(json.loads((folder / CONFIG).read_text(encoding="utf-8")))
    except (OSError, TypeError, ValueError) as error:
        raise _damaged(folder, f"{CONFIG}: {error}") from None
    now = json.loads(json.dumps(key))
    if then != now:
        names = [name for name in now if name != "settings" and then.get(name) != now[name]]
        before = then.get("settings", {})
        names += [f"settings.{name}" for name, value in now["settings"].items() if before.get(name) != value]
        expected = f"a folder begun with the settings of now: {', '.join(names)} differ"
        raise InputError(folder, expected=expected, found=f"others in {CONFIG}", todo=ANEW)


def _damaged(folder: Path, found: str) -> InputError:
    return InputError(folder, expected=f"a whole stage, with {CONFIG} and {RESULT}", found=found, todo=ANEW)
