"""The official code beside ucvgl: the same inputs, the results compared first, then timed in turns; and the peak memory.

    python benchmarks/side_by_side.py --ucvgl DIR --sample4geo DIR --vg-ssl DIR [--rows TEXT] [--small] [--out FILE]

takes clones of the official repositories that you made and imports their functions as they are (`official.py`). A clone may
be left out: its rows say so. Each row runs in a process of its own, which sees one clone; so does each side once more for
its memory. A function that cannot run here gets the reason in its row. Sleeps in the official functions are left out.

Writes benchmarks/results/side_by_side.md. Exit status: 1 where results differ or a row of ours failed, else 0.
"""

import argparse
import io
import statistics
import sys
from collections.abc import Callable
from concurrent.futures.process import BrokenProcessPool
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any
from unittest import mock

import official_losses
import official_retrieval
import official_shuffle
import official_top_view
import official_training
from comparison import SMALL, Pair, Row, Sizes
from harness import RESULTS, in_a_process, in_turns, now, peak_mb, write
from official import REPOSITORIES, CannotRun, Clone, check_clone, commit_of, in_words

from ucvgl.errors import InputError

QUESTIONS = (official_top_view, official_retrieval, official_shuffle, official_losses, official_training)
ROWS = [row for question in QUESTIONS for row in question.ROWS]
SIDES = ("official", "ucvgl")
MEASURES = ("official ms", "ucvgl ms", "times faster", "official MB", "ucvgl MB")
COLUMNS = ("task", "size", "official", *MEASURES, "agreement")


def official_call(call: Callable[[], Any]) -> Any:
    """What the official code does, its errors in words."""
    try:
        return call()
    except InputError:
        raise  # ours
    except (Exception, SystemExit) as error:
        raise CannotRun(in_words(error)) from error


def calls(pair: Pair) -> dict[str, Callable[[], Any]]:
    """By side."""
    return {"official": lambda: official_call(pair.official), "ucvgl": pair.ours}


def timed(pair: Pair, repeats: int) -> dict[str, Any]:
    """Compares the results, and times the two sides where they agree."""
    verdict = pair.agree(official_call(pair.official), pair.ours())
    if not verdict.agrees:
        return {"agreement": f"results differ: not timed; {verdict.how}"}

    def seconds(call: Callable[[], Any]) -> float:
        begun = now()
        result = call()
        return now() - begun if pair.seconds is None else pair.seconds(result)

    theirs, ours = (1000 * statistics.median(found) for found in in_turns(calls(pair), repeats, seconds).values())
    return {"official ms": theirs, "ucvgl ms": ours, "times faster": theirs / ours, "agreement": verdict.how}


def work(row: Row, folder: Path, sizes: Sizes, what: str) -> dict[str, Any]:
    """One row in this process; what: 'time', or the side whose memory is measured, of SIDES."""
    clone, silent = Clone(folder), io.StringIO()
    try:
        quiet = redirect_stdout(silent), redirect_stderr(silent)
        with mock.patch("time.sleep"), mock.patch("sys.dont_write_bytecode", True), quiet[0], quiet[1]:
            pair = official_call(lambda: row.prepare(clone, sizes))
            found = timed(pair, sizes.repeats) if what == "time" else {what: peak_mb(calls(pair)[what], pair.device)}
            found["size"] = pair.size
    except CannotRun as error:
        found = {"agreement": str(error)}
    except Exception as error:
        found = {"agreement": f"ucvgl failed: {in_words(error)}"}
    finally:
        clone.close()
    return found | {"stubs": clone.stubs}


def measured(row: Row, folder: Path, sizes: Sizes) -> dict[str, Any]:
    """A line of the table: times, then the memory of each side."""
    try:
        line = in_a_process(work, row, folder, sizes, "time")
        if "times faster" in line:
            line |= {f"{side} MB": in_a_process(work, row, folder, sizes, side).get(side, "") for side in SIDES}
    except BrokenProcessPool as error:
        line = {"agreement": f"ucvgl failed: {in_words(error)}"}
    return line


def main(arguments: list[str] | None = None) -> int:
    """Measures, prints and writes the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, repository in REPOSITORIES.items():
        parser.add_argument(repository.argument, type=Path, metavar="DIR", dest=name, help=f"clone of {repository.url}")
    parser.add_argument("--small", action="store_true", help="tiny inputs, to see that everything runs")
    parser.add_argument("--rows", metavar="TEXT", default="", help="only the rows whose task contains this")
    parser.add_argument("--out", type=Path, default=RESULTS / "side_by_side.md")
    asked = parser.parse_args(arguments)
    clones = {name: folder for name in REPOSITORIES if (folder := getattr(asked, name)) is not None}
    try:
        for name, folder in clones.items():
            check_clone(name, folder)
    except InputError as error:
        parser.error(str(error))
    wanted = [row for row in ROWS if asked.rows in row.task]
    if not wanted:
        parser.error(f"--rows {asked.rows}: expected a part of one of: {', '.join(row.task for row in ROWS)}")
    rows, stubs = [], set()
    for row in wanted:
        line = {"agreement": f"{REPOSITORIES[row.repository].argument} not given"}
        if row.repository in clones:
            line = measured(row, clones[row.repository], SMALL if asked.small else Sizes())
        stubs |= {f"{row.repository}: {package}" for package in line.get("stubs", [])}
        line |= {"task": row.task, "official": f"{row.repository}: {row.function}"}
        rows.append({column: line.get(column, "") for column in COLUMNS})
        print(f"{row.task}: {line.get('times faster', line['agreement'])}", file=sys.stderr, flush=True)
    commits = [f"{name} {commit_of(folder)} ({REPOSITORIES[name].url}). " for name, folder in clones.items()]
    about = (
        "Medians of rounds in which both sides take turns; memory is the peak above imports and inputs, each side in a "
        f"process of its own. Replaced by empty modules, where they are not installed: {', '.join(sorted(stubs)) or 'none'}."
    )
    after = "\n".join(["What is timed:", "", *(f"- {row.task}: {row.note}" for row in wanted)])
    write(asked.out, "The official code beside ucvgl", "".join(commits) + about, rows, after)
    return int(any(row["agreement"].startswith(("results differ", "ucvgl failed")) for row in rows))


if __name__ == "__main__":
    sys.exit(main())
