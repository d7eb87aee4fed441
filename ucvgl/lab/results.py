"""Results and their provenance: figures, tables, headline numbers, each with the recipe that made it beside it.

Tables are kept as CSV, to compute with, and as Markdown, with mean ± standard deviation over seeds and a note on how sure the
numbers are. A notebook calls `start`, saves through the `Run` it gets, and closes with `run.finish(...)`, which writes
results.json, the edge of the Snakefile's graph; `publish` merges the seeds into `figures/`."""

import json
import math
import os
import platform
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from IPython.display import Markdown
from PIL import Image

from ucvgl import __version__, paths
from ucvgl.errors import InputError
from ucvgl.lab.settings import WORLD, RunRequest, asked_rows
from ucvgl.paths import plain, write_json, write_text, written_whole

if TYPE_CHECKING:  # matplotlib takes half a second to load
    from matplotlib.figure import Figure

# How the columns of measures are headed in Markdown; any other column keeps its name, with spaces.
HEADINGS = {f"r_at_{k}": f"R@{k} (%)" for k in (1, 5, 10, 20)} | {
    "r_at_1_percent": "R@1% (%)", "hit_rate": "hit rate (%)", "ap": "AP (%)", "correct": "correct (%)",
    "labels": "labels (%)",
}  # fmt: skip
MEASURE = re.compile(rf"(published_)?(?:(.+)_)?({'|'.join(sorted(HEADINGS, key=len, reverse=True))})")
TEXTS = str, bool, np.bool_  # what is not averaged over seeds
Queries = int | Mapping[str, int] | None  # behind the recalls of a table, or of each column; None: it has no recalls
trained_on: set[str] = set()  # devices that the stages this process has loaded were computed on


def commit() -> str | None:
    """The commit of this checkout, with '-dirty' if tracked sources differ from it, but for what the engine itself rewrites
    (figures/, outputs in notebooks/); None where there is no checkout."""
    if not (paths.ROOT / ".git").exists() or shutil.which("git") is None:
        return None
    git, sources = ["git", "-C", str(paths.ROOT)], [".", ":(exclude)figures", ":(exclude)notebooks"]
    found = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True).stdout.strip()
    changed = subprocess.run([*git, "diff", "--quiet", "HEAD", "--", *sources], capture_output=True).returncode == 1
    return found + "-dirty" * changed or None


def device() -> str:
    """What computes here, in words: the GPU's name if torch is loaded and sees one, else the CPU's kind and cores."""
    torch = sys.modules.get("torch")  # not imported just to ask: that takes seconds
    if torch is not None and torch.cuda.is_available():
        return torch.cuda.get_device_name(0)
    return f"CPU {platform.machine()}, {os.cpu_count()} cores"


def read_table(path: Path) -> pd.DataFrame:
    """A saved table; only an empty cell is 'not known', so that a row may be called None."""
    return pd.read_csv(path, keep_default_na=False, na_values=[""])


def read_recipe(path: Path) -> dict[str, Any]:
    """What stands in JSON beside a table or figure, or in results.json; InputError where no finished run left it."""
    file = path.with_suffix(".json")
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except (OSError, json.JSONDecodeError) as error:
        raise InputError(file, "a finished run's file", found=error, todo="Run the notebook again.") from error


def write_table(path: Path, frame: pd.DataFrame, recipe: dict[str, Any]) -> Markdown:
    """Writes a table's CSV `path`, and beside it its Markdown and its recipe, both with the note; gives the Markdown."""
    write_text(path, frame.to_csv(index=False, float_format="%.6g", lineterminator="\n"))
    recipe["note"] = note(recipe["data"], recipe["profile"], recipe["seeds"], recipe["queries"])
    text = render(read_table(path), recipe["caption"], recipe["note"])
    write_text(path.with_suffix(".md"), text)
    write_json(path.with_suffix(".json"), recipe)
    return Markdown(text)


def heading(column: str) -> str:
    """A column's heading: 'CVUSA R@1 (%), published' for published_cvusa_r_at_1."""
    theirs, text = column.startswith("published_"), column.removeprefix("published_").replace("_", " ")
    if found := MEASURE.fullmatch(column):
        before = (found[2] or "").replace("_", " ")
        text = f"{before.upper() if theirs else before} {HEADINGS[found[3]]}".strip()  # data sets: CVUSA, CVACT VAL
    return text.replace("|", "\\|") + ", published" * theirs


def render(frame: pd.DataFrame, caption: str, note: str) -> str:
    """A table in Markdown, with its caption above and its note (of `note`) below. One seed, by the column `seed`, if there is one:
    its rows. Several that match row by row: mean ± standard deviation where they differ. Otherwise all rows, with their seeds."""
    seeds = [rows for _, rows in frame.groupby("seed", sort=False)] if "seed" in frame else [frame]
    shown = {name: [_cell(values, name) for values in zip(*(rows[name] for rows in seeds), strict=False)]
             for name in frame if name != "seed"}  # fmt: skip
    if len({len(rows) for rows in seeds}) > 1 or any(None in cells for cells in shown.values()):
        shown = {name: [_cell([value], name) for value in frame[name]] for name in frame}
    elif len(seeds) > 1:
        note += "; where seeds differ: mean ± standard deviation"
    columns = ([heading(name), "---", *cells] for name, cells in shown.items())
    body = "\n".join(f"| {' | '.join(row)} |" for row in zip(*columns, strict=True))
    return f"{caption}\n\n{body}\n\n*{note}.*\n"


def _cell(values: Sequence[Any], column: str) -> str | None:
    """A value a seed: equal ones as they are, differing numbers as mean ± standard deviation; None for differing texts. '-' for
    what is not known, percentages to one decimal, other numbers to four digits."""
    percent, texts = MEASURE.fullmatch(column), set()
    for value in values:
        if isinstance(value, TEXTS) or pd.isna(value):
            texts.add("-" if pd.isna(value) else str(value).replace("|", "\\|").replace("\n", " "))
        else:
            whole = float(value).is_integer() or abs(value) >= 1000
            texts.add(f"{value:.1f}" if percent else f"{value:.0f}" if whole else f"{value:.4g}")
    if len(texts) == 1:
        return texts.pop()
    if any(isinstance(value, TEXTS) or pd.isna(value) for value in values):
        return None
    mean, spread = np.mean(values), np.std(values, ddof=1)
    return f"{mean:.1f} ± {spread:.1f}" if percent else f"{mean:.4g} ± {spread:.2g}"


def note(data: str, profile: str, seeds: Sequence[int], queries: Queries = None) -> str:
    """The line under every table and in every recipe: what the numbers were measured on, and how sure recalls are. A recall p of n
    independent queries has a standard error of sqrt(p (1 - p) / n), which is greatest at 50 %."""
    world = "the embedded world, a synthetic city: not comparable with numbers on CVUSA or any other real data set"
    where = world if data == WORLD else f"the data set {data}"
    text = f"Measured on {where}; profile {profile}, seed{'s' * (len(seeds) > 1)} {', '.join(map(str, seeds))}"
    if queries is None:
        return text
    counts = list(queries.values()) if isinstance(queries, Mapping) else [queries]
    ends = sorted({min(counts), max(counts)})
    count, error = " to ".join(f"{n:,}" for n in ends), " to ".join(f"{50 / math.sqrt(n):.1f}" for n in ends)
    spread = "; one seed, so the spread over seeds is not known" if len(seeds) == 1 else ""
    return f"{text}{spread}; a recall of {count} queries has a standard error of up to {error} points of its own"


@dataclass
class Run:
    """One execution of a notebook; `settings`, below: the dataclass that the numbers came from, or a list of several."""

    notebook: str  # its name without suffix
    profile: str  # one of PROFILES
    data: str  # 'world' or the absolute path of a data set
    seed: int  # of everything random in the notebook
    folder: Path  # where its artefacts go
    measured_on: str  # the data id that tables and figures name
    started: float = field(default_factory=time.monotonic)  # seconds
    artefacts: dict[str, dict[str, str]] = field(default_factory=dict)  # by name: file, kind, caption

    def provenance(self, settings: Any = ()) -> dict[str, Any]:
        """How to make it again: data, profile, seeds, configurations, versions, commit, device; the seconds it took."""
        configs = settings if isinstance(settings, (list, tuple)) else [settings]
        versions = {name: version(name) for name in ("torch", "torchvision", "timm", "numpy")}  # can change a number
        return {
            "notebook": self.notebook, "data": self.measured_on, "profile": self.profile, "rows": asked_rows(),
            "seeds": [self.seed],
            "settings": [{"type": type(config).__name__, "values": plain(asdict(config))} for config in configs],
            "versions": {"ucvgl": __version__, "python": platform.python_version(), **versions}, "commit": commit(),
            "device": " and ".join(sorted({device()} | trained_on)),  # a stage may come from elsewhere
            "seconds": round(time.monotonic() - self.started, 1),
        }  # fmt: skip

    def _add(self, name: str, kind: str, caption: str) -> Path:
        """The path of an artefact, which is noted; two kinds of one name would write one recipe, <name>.json."""
        path = self.folder / f"{name}.{'csv' if kind == 'table' else 'png'}"
        taken = name == "results" or self.artefacts.get(name, {"kind": kind})["kind"] != kind
        assert not taken, f"{name!r} is taken by another artefact"
        self.artefacts[name] = {"file": path.name, "kind": kind, "caption": caption}
        return path

    def save_figure(self, figure: "Figure", name: str, *, caption: str, settings: Any = ()) -> Path:
        """Saves a matplotlib figure, which is neither shown nor closed, as `<name>.png`, its recipe as `<name>.json`; the path."""
        path, drawn = self._add(name, "figure", caption), BytesIO()
        # without the software's name: the same picture, byte for byte, from another matplotlib
        figure.savefig(drawn, format="png", dpi=110, bbox_inches="tight", metadata={"Software": None})
        with Image.open(drawn) as picture, written_whole(path) as partial:
            # 256 colours: photographs at a third of the size, for a repository
            picture.convert("RGB").quantize(256).save(partial, format="PNG", optimize=True)
        said = {"file": path.name, "caption": caption, "note": note(self.measured_on, self.profile, [self.seed])}
        write_json(path.with_suffix(".json"), said | self.provenance(settings))
        return path

    def save_table(
        self, frame: pd.DataFrame, name: str, *, caption: str, settings: Any = (), queries: Queries = None,
        published: Mapping[str, Sequence[float | None]] | pd.DataFrame | None = None,
    ) -> Markdown:  # fmt: skip
        """Saves a table as `<name>.csv` (to compute with), `<name>.md` (to read) and its recipe as `<name>.json`.
        frame: a row a method or setting; measures named as in `HEADINGS`, in percent; no index. A column `seed` comes first.
        published: a paper's columns beside it, saved as `published_<column>`. queries: how many test queries the recalls rest on,
        or those of each column by its name, for the sampling error in the note."""
        frame = frame.reset_index(drop=True)
        for column, values in ({} if published is None else published).items():
            frame[f"published_{column}"] = np.array(values, dtype=float)  # None becomes NaN, another length an error
        frame.insert(0, "seed", self.seed)
        recipe = {"file": f"{name}.csv", "caption": caption, "note": "", "queries": queries} | self.provenance(settings)
        return write_table(self._add(name, "table", caption), frame, recipe)

    def keep(self, name: str) -> Markdown | str:
        """A published table once more, where the data it was measured on is absent: this seed's rows, with their own recipe."""
        path = RunRequest(self.profile).figure_folder(self.notebook) / f"{name}.csv"
        rows = read_table(path).query(f"seed == {self.seed}") if path.exists() else ()
        if len(rows) == 0:
            return f"{path} has no rows of seed {self.seed}: nothing to show."
        recipe = read_recipe(path) | {"seeds": [self.seed]}
        return write_table(self._add(name, "table", recipe["caption"]), rows, recipe)

    def over_seeds(self, name: str, *measures: str) -> Markdown | str:
        """A table as it is published, over all its seeds: its rows' names, and some measures (columns) as mean ± deviation."""
        path = RunRequest(self.profile, self.data).figure_folder(self.notebook) / f"{name}.csv"
        if not path.exists():
            return f"{path} is not there yet: `make reproduce SEED=0,1,2` writes it."
        table = read_table(path)
        shown = table[["seed", table.columns[1], *measures]]
        return Markdown(render(shown, f"Published: `{name}`.", read_recipe(path)["note"]))

    def finish(self, **numbers: float | str | None) -> Path:
        """Writes results.json, the last call of a notebook: headline numbers (None: not measured), artefacts, recipe."""
        path = self.folder / "results.json"
        write_json(path, {"numbers": numbers, "artefacts": [*self.artefacts.values()], **self.provenance()})
        return path


def start(notebook: str, *, profile: str, data: str, seed: int, always_world: bool = False) -> Run:
    """Opens a run, after a notebook's `parameters` cell; UCVGL_PROFILE overrides `profile` (for CI). always_world: the numbers are
    the embedded world's whatever the data set. The run writes to the folder that the engine chose (UCVGL_RUN_FOLDER), else, where
    a reader steps through, to `<notebook>-interactive` under runs/."""
    asked = RunRequest(os.environ.get("UCVGL_PROFILE") or profile, data, (seed,))
    folder = Path(os.environ.get("UCVGL_RUN_FOLDER") or asked.run_folder(f"{notebook}-interactive", seed))
    folder.mkdir(parents=True, exist_ok=True)
    return Run(notebook, asked.profile, asked.data, seed, folder, WORLD if always_world else asked.data_id)


def publish(folders: Sequence[Path], out: Path) -> Path:
    """Merges the finished runs of one notebook, a folder a seed, into the folder `out`, replacing what was there. Tables get the
    rows of all seeds, and in Markdown mean and spread; figures are the first seed's; every recipe lists its seeds. Gives the path
    of the merged results.json; InputError: an unfinished run, none, or several notebooks' or data sets'."""
    results = [read_recipe(folder / "results.json") for folder in folders]
    runs = sorted({f"{result['notebook']}, profile {result['profile']}, {result['data']}" for result in results})
    if len(runs) != 1:
        raise InputError("publish", "runs of one notebook, profile and data set", runs, "Publish them one by one.")
    partial = out.with_name(f".{out.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    artefacts = {a["file"]: a for result in reversed(results) for a in result["artefacts"]}  # the first seed's caption
    for file, artefact in artefacts.items():
        saved = [folder / file for folder in folders if (folder / file).exists()]
        if artefact["kind"] == "table":
            merged = _together([read_recipe(path) for path in saved])
            write_table(partial / file, pd.concat(map(read_table, saved)), merged)
        else:
            shutil.copy(saved[0], partial)
            shutil.copy(saved[0].with_suffix(".json"), partial)
    numbers = {str(result["seeds"][0]): result["numbers"] for result in results}
    merged = _together(results) | {"numbers": numbers, "artefacts": [*artefacts.values()]}
    write_json(partial / "results.json", merged)
    paths.replace_folder(partial, out)
    return out / "results.json"


def _together(recipes: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The first seed's recipe, with the seeds, seconds and devices of all."""
    return recipes[0] | {
        "seeds": [seed for recipe in recipes for seed in recipe["seeds"]],
        "seconds": round(sum(recipe["seconds"] for recipe in recipes), 1),
        "device": "; ".join(dict.fromkeys(recipe["device"] for recipe in recipes)),
    }
