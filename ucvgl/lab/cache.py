"""The run cache: a stage, which is a computation with settings on a data set, is run once and loaded ever after.

Its folder runs/<stage>-<hash of settings and data> holds config.json, result.json, and whatever the stage wrote:
training.safetensors, metrics.jsonl. It is worked on under another name, `.<stage>-<hash>.partial`, which outlives a
killed run so that training in it resumes, and gets its own name when the stage is done.
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

    `compute` does the work. It gets the folder to write to, which after a kill still has what was written before, and returns
    what goes into result.json: numbers, texts, lists and dictionaries of them. In several processes (torchrun) all call it at
    once and train in it together; the first one's result counts. `say` is given one line: whether the stage was loaded or run,
    and how long it took. The rest as in `stage_key`.

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
            resumed = not folder.exists() and _begun(partial, key)
        # the main process's answer, once it has the lock: on a shared file system the others may see a folder later
        loaded = from_first(folder.exists())
        if not loaded:
            begun = time.perf_counter()
            numbers = compute(partial)
            place.wait_for_everyone()
            if place.is_main_process:
                _finish(partial, folder, numbers, time.perf_counter() - begun, resumed)
            place.wait_for_everyone()
    result = _load(folder, key, loaded)
    if place.is_main_process:
        took = f"in {result.seconds:.0f} s" + (", its last part after a stop" if result.resumed else "")
        say(f"{folder.name}: loaded (ran {took})" if loaded else f"{folder.name}: ran {took}")
    return result


def _begun(partial: Path, key: dict[str, Any]) -> bool:
    """Whether a killed run left the working folder, which then has to be this stage's; else it is made."""
    if (partial / CONFIG).exists():
        _check_config(partial, key)
        return True
    write_json(partial / CONFIG, key)
    return False


def _finish(partial: Path, folder: Path, numbers: dict[str, Any], seconds: float, resumed: bool) -> None:
    result = {"seconds": seconds, "resumed": resumed, "device": device(), "numbers": numbers}
    try:
        write_json(partial / RESULT, result)
    except (TypeError, ValueError) as error:
        expected, todo = "finite numbers, texts, lists and dictionaries", "Return plain values."
        raise InputError(f"result of {folder.name}", expected=expected, found=error, todo=todo) from None
    replace_folder(partial, folder)


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
        then = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise _damaged(folder, f"{CONFIG}: {error}") from None
    if names := _differing(then, json.loads(json.dumps(key))):
        expected = f"a folder begun with the settings of now: {', '.join(sorted(names))} differ"
        raise InputError(folder, expected=expected, found=f"others in {CONFIG}", todo=ANEW)


def _differing(then: Any, now: Any, name: str = "") -> set[str]:
    """The dotted names of the settings in which two configurations differ."""
    if not (isinstance(then, dict) and isinstance(now, dict)):
        return set() if then == now else {name or "all"}
    names = then.keys() | now.keys()
    return {d for k in names for d in _differing(then.get(k), now.get(k), f"{name}.{k}".lstrip("."))}


def _damaged(folder: Path, found: str) -> InputError:
    return InputError(folder, expected=f"a whole stage, with {CONFIG} and {RESULT}", found=found, todo=ANEW)
