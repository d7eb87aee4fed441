"""The official code beside ucvgl: the same inputs, the results compared first, then timed in turns; and the peak memory.

    python benchmarks/side_by_side.py --ucvgl DIR --sample4geo DIR [--rows TEXT] [--small] [--out FILE]

takes clones of the official repositories that you made and imports their functions as they are; their sleeps are left out.
A clone may be missing: its rows say so. Each row runs in a process of its own, which sees one clone; so does each side once
more for its memory. On a GPU the training step has the published size. Writes benchmarks/results/side_by_side.md; exit
status 1 where results differ or a row of ours failed.
"""

import argparse
import io
import statistics
import sys
from collections.abc import Callable
from concurrent.futures.process import BrokenProcessPool
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import official_sample4geo
import official_ucvgl
import torch
from harness import RESULTS, in_a_process, in_turns, now, peak_mb, write
from official import REPOSITORIES, SMALL, CannotRun, Clone, Differs, Pair, Row, Sizes, check_clone, commit_of

from ucvgl.errors import InputError

ROWS = [*official_ucvgl.ROWS, *official_sample4geo.ROWS]
SIDES = ("official", "ucvgl")
TIMES, MEMORY = ("official ms", "ucvgl ms", "times faster"), ("official MB", "ucvgl MB")
COLUMNS = ("task", "size", "official", *TIMES, *MEMORY, "agreement")


def in_words(error: BaseException) -> str:
    """An error in one line."""
    text = " ".join(str(error).split())[:300]
    return text if isinstance(error, CannotRun) else f"{type(error).__name__}: {text}"


def official_call(call: Callable[[], Any]) -> Any:
    """What the official code does; CannotRun for whatever it raises."""
    try:
        return call()
    except (Exception, SystemExit) as error:
        raise CannotRun(in_words(error)) from error


def timed(pair: Pair, repeats: int) -> dict[str, Any]:
    """Compares the results, and times the two sides where they agree."""
    how = pair.agree(official_call(pair.official), pair.ours())

    def seconds(call: Callable[[], Any]) -> float:
        begun = now()
        result = call()
        return now() - begun if pair.seconds is None else pair.seconds(result)

    times = in_turns({"official": pair.official, "ucvgl": pair.ours}, repeats, seconds)
    theirs, ours = (1000 * statistics.median(times[side]) for side in SIDES)
    return {"official ms": theirs, "ucvgl ms": ours, "times faster": theirs / ours, "agreement": how}


def work(row: Row, folder: Path, sizes: Sizes, what: str) -> dict[str, Any]:
    """One row in this process; what: 'time', or the side whose memory is measured, of SIDES."""
    quiet = redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO())
    try:
        with mock.patch("time.sleep"), mock.patch("sys.dont_write_bytecode", True), quiet[0], quiet[1]:
            pair = official_call(lambda: row.prepare(Clone(folder), sizes))
            if what == "time":
                found = timed(pair, sizes.repeats)
            else:
                found = {f"{what} MB": peak_mb(pair.official if what == "official" else pair.ours, pair.device)}
            found["size"] = pair.size
    except CannotRun as error:
        found = {"agreement": str(error)}
    except Differs as error:
        found = {"agreement": f"results differ: not timed; {error}"}
    except Exception as error:
        found = {"agreement": f"ucvgl failed: {in_words(error)}"}
    return found


def measured(row: Row, folder: Path, sizes: Sizes) -> dict[str, Any]:
    """A line of the table: times, then the memory of each side."""
    try:
        line = in_a_process(work, row, folder, sizes, "time")
        if "times faster" in line:
            for side in SIDES:
                line = in_a_process(work, row, folder, sizes, side) | line
    except BrokenProcessPool as error:
        line = {"agreement": f"ucvgl failed: {in_words(error)}"}
    return line


def main() -> int:
    """Measures, prints and writes the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, repository in REPOSITORIES.items():
        parser.add_argument(repository.argument, type=Path, metavar="DIR", dest=name, help=f"clone of {repository.url}")
    parser.add_argument("--small", action="store_true", help="tiny inputs, to see that everything runs")
    parser.add_argument("--rows", metavar="TEXT", default="", help="only the rows whose task contains this")
    parser.add_argument("--out", type=Path, default=RESULTS / "side_by_side.md")
    asked = parser.parse_args()
    clones = {name: folder for name in REPOSITORIES if (folder := getattr(asked, name)) is not None}
    try:
        for name, folder in clones.items():
            check_clone(name, folder)
    except InputError as error:
        parser.error(str(error))
    wanted = [row for row in ROWS if asked.rows in row.task]
    if not wanted:
        parser.error(f"--rows {asked.rows}: expected a part of one of: {', '.join(row.task for row in ROWS)}")
    published = Sizes()
    if torch.cuda.is_available():
        published = replace(published, model="convnext_base", train_batch=128, image_px=384, steps=7)
    rows = []
    for row in wanted:
        line = {"agreement": f"{REPOSITORIES[row.repository].argument} not given"}
        if row.repository in clones:
            line = measured(row, clones[row.repository], SMALL if asked.small else published)
        line |= {"task": row.task, "official": f"{row.repository}: {row.function}"}
        rows.append({column: line.get(column, "") for column in COLUMNS})
        print(f"{row.task}: {line.get('times faster', line['agreement'])}", file=sys.stderr, flush=True)
    commits = [f"{name} {commit_of(folder)} ({REPOSITORIES[name].url}). " for name, folder in clones.items()]
    about = "Medians of rounds in which both sides take turns; memory is the peak above imports and inputs."
    after = "\n".join(["What is timed:", "", *(f"- {row.task}: {row.note}" for row in wanted)])
    write(asked.out, "The official code beside ucvgl", "".join(commits) + about, rows, after)
    return int(any(row["agreement"].startswith(("results differ", "ucvgl failed")) for row in rows))


if __name__ == "__main__":
    sys.exit(main())
