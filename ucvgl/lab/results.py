"""What a notebook leaves behind: figures, tables, headline numbers, each with the recipe that made it beside it.

A notebook calls `start`, saves through the `Run` it gets, and closes with `run.finish(...)`, which writes results.json:
the edge of the graph in the Snakefile. `publish` then merges the seeds into `figures/`. Everything is written to a
temporary name and renamed, so that a killed run leaves nothing half-written.
"""

import hashlib
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
from dataclasses import asdict, dataclass, field, is_dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
from PIL import Image

from ucvgl import __version__, paths
from ucvgl.errors import InputError
from ucvgl.paths import plain, replace_folder, write_json, write_text

if TYPE_CHECKING:
    from IPython.display import Markdown
    from matplotlib.figure import Figure

PROFILES = ("tiny", "laptop", "paper")
WORLD = "world"
PACKAGES = ("torch", "torchvision", "timm", "numpy", "faiss-cpu", "faiss-gpu")
FLOAT_FORMAT = "%.6g"

# How the columns of measures are headed in Markdown; any other column keeps its name, with spaces.
HEADINGS = {
    "r_at_1": "R@1 (%)",
    "r_at_5": "R@5 (%)",
    "r_at_10": "R@10 (%)",
    "r_at_1_percent": "R@1% (%)",
    "hit_rate": "hit rate (%)",
    "ap": "AP (%)",
    "correct": "correct (%)",
    "labels": "labels (%)",
}


# --------------------------------------------------------------------------------------------- settings and their names


def check_profile(profile: str) -> str:
    """Gives `profile` back if it is one of PROFILES; raises InputError otherwise."""
    if profile not in PROFILES:
        raise InputError("profile", expected=f"one of {', '.join(PROFILES)}", found=repr(profile), todo="Choose one.")
    return profile


def check_data(data: str) -> str:
    """Gives 'world' back, or the absolute path of an existing folder; raises InputError for anything else."""
    if data == WORLD:
        return WORLD
    folder = Path(data).expanduser().resolve() if data else None
    if folder is None or not folder.is_dir():
        raise InputError(
            "data",
            expected="'world' (the embedded city) or the root folder of a data set",
            found=repr(str(data)),
            todo="Check the spelling of the path; the README's page on data says which layouts are read.",
        )
    return str(folder)


def check_seed(seed: int) -> int:
    """Gives `seed` back if it is a whole number of at least 0; raises InputError otherwise."""
    if isinstance(seed, bool) or not isinstance(seed, int) or seed < 0:
        raise InputError("seed", expected="a whole number >= 0", found=repr(seed), todo="Choose another seed.")
    return seed


def data_id(data: str) -> str:
    """A short name for a data set, safe in a path: 'world', or the folder's name and six hex digits of its path."""
    data = check_data(data)
    if data == WORLD:
        return WORLD
    slug = re.sub(r"[^a-z0-9]+", "-", Path(data).name.lower()).strip("-") or "data"
    return f"{slug}-{hashlib.sha256(data.encode()).hexdigest()[:6]}"


def plain_settings(config: Any) -> dict[str, Any]:
    """A dataclass instance as JSON can hold it; InputError if it is none, TypeError for a field that has no such form."""
    if not is_dataclass(config) or isinstance(config, type):
        raise InputError(
            "settings",
            expected="a dataclass instance, or several in a list",
            found=type(config).__name__,
            todo="Pass the frozen dataclass that the stage ran with.",
        )
    return plain(asdict(config))


def config_hash(config: Any) -> str:
    """Twelve hex digits that name a configuration: SHA-256 of its type's name and its fields as canonical JSON.

    Args:
        config: a dataclass instance made of numbers, texts, sequences, mappings and other dataclasses.

    Raises:
        InputError: it is no dataclass instance.
        TypeError: a field has no form in JSON.
    """
    text = json.dumps([type(config).__name__, plain_settings(config)], sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:12]


# ----------------------------------------------------------------------------------------------------------- provenance


def _git(*arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", "-C", str(paths.ROOT), *arguments], capture_output=True, text=True, timeout=20, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def commit() -> str | None:
    """The commit of this checkout, with '-dirty' if tracked sources differ from it; None where there is no checkout.

    What the engine itself rewrites (figures/, outputs in notebooks/) does not make it dirty.
    """
    top = _git("rev-parse", "--show-toplevel")
    head = _git("rev-parse", "--verify", "HEAD")
    if top is None or head is None or Path(top).resolve() != paths.ROOT:
        return None
    changed = _git(
        "status", "--porcelain", "--untracked-files=no", "--", ".", ":(exclude)figures", ":(exclude)notebooks"
    )
    return f"{head}-dirty" if changed else head


def device() -> str:
    """What computes here, in words: the GPU's name if torch is loaded and sees one, else the CPU's kind and cores."""
    torch = sys.modules.get("torch")  # not imported just to ask: that takes seconds
    if torch is not None and torch.cuda.is_available():
        return torch.cuda.get_device_name(0)
    return f"CPU {platform.machine()}, {os.cpu_count()} cores"


def versions() -> dict[str, str]:
    """The versions of this package and of those that can change a number; those not installed are left out."""
    found = {"ucvgl": __version__, "python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


# --------------------------------------------------------------------------------------------------------------- tables


def _cell(value: Any, percent: bool) -> str:
    if value is None or (isinstance(value, float) and math.isnan(value)) or value is pd.NA:
        return "-"
    if isinstance(value, str) or pd.api.types.is_bool(value) or not hasattr(value, "__float__"):
        return str(value).replace("|", "\\|").replace("\n", " ")
    number = float(value)
    if percent:
        return f"{number:.1f}"
    if number.is_integer() and abs(number) < 1e15:
        return str(int(number))
    return f"{number:.0f}" if abs(number) >= 1000 else f"{number:.4g}"


def _measure(column: str) -> tuple[str, str]:
    """What stands before a measure in a column's name, and the measure: ('cvusa', 'r_at_1'); ('', '') if it is none."""
    stem = column.removeprefix("published_")
    for key in sorted(HEADINGS, key=len, reverse=True):
        if stem == key or stem.endswith(f"_{key}"):
            return stem[: -len(key)].rstrip("_"), key
    return "", ""


def _heading(column: str) -> str:
    stem = column.removeprefix("published_")
    before, key = _measure(column)
    words = _cell((before if key else stem).replace("_", " "), percent=False)
    words = words.upper() if key and stem != column else words  # data sets: CVUSA, CVACT VAL
    heading = f"{words} {HEADINGS[key]}".strip() if key else words
    return f"{heading}, published" if stem != column else heading


def _percent(column: str) -> bool:
    return bool(_measure(column)[1])


def _markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    line = [f"| {' | '.join(cells)} |" for cells in (header, ["---"] * len(header), *rows)]
    return "\n".join(line)


def _over_seeds(frames: Sequence[pd.DataFrame]) -> tuple[list[str], list[list[str]]] | None:
    """The rows of several seeds' tables in one: equal cells as they are, differing numbers as mean ± deviation.

    None where the tables do not match row by row: then every row has to be shown.
    """
    first, *others = (frame.drop(columns="seed") for frame in frames)
    if any(other.shape != first.shape or list(other.columns) != list(first.columns) for other in others):
        return None
    rows = []
    for index in range(len(first)):
        row = []
        for column in first.columns:
            values = [frame[column].iloc[index] for frame in (first, *others)]
            texts = {_cell(value, _percent(column)) for value in values}
            numbers = pd.to_numeric(pd.Series(values), errors="coerce")
            if len(texts) == 1:
                row.append(texts.pop())
            elif numbers.notna().all() and not isinstance(values[0], (str, bool)):
                mean, spread = float(numbers.mean()), float(numbers.std(ddof=1))
                row.append(f"{mean:.1f} ± {spread:.1f}" if _percent(column) else f"{mean:.4g} ± {spread:.2g}")
            else:
                return None
        rows.append(row)
    return list(first.columns), rows


def render_table(frames: Sequence[pd.DataFrame], caption: str, note: str) -> str:
    """A table as its reader sees it: caption, rows, and what the numbers were measured on.

    Args:
        frames: one table for each seed, each with a `seed` column.
        caption: one or more sentences.
        note: the data set, profile and seeds, in words.

    Returns:
        Markdown. One seed: its rows. Several that match row by row: mean ± standard deviation where they differ.
        Otherwise all rows, with their seeds.
    """
    merged = _over_seeds(frames) if all(frame["seed"].nunique() <= 1 for frame in frames) else None
    if merged is None:
        frame = pd.concat(frames, ignore_index=True)
        columns = list(frame.columns)
        rows = [[_cell(frame[c].iloc[i], _percent(c)) for c in columns] for i in range(len(frame))]
    else:
        columns, rows = merged
        if len(frames) > 1:
            note += "; where seeds differ: mean ± standard deviation"
    return f"{caption}\n\n{_markdown([_heading(c) for c in columns], rows)}\n\n*{note}.*\n"


def data_note(data: str, profile: str, seeds: Sequence[int]) -> str:
    """The line under every table and in every caption that says what the numbers were measured on.

    Args:
        data: 'world' or a data id.
        profile: one of PROFILES.
        seeds: at least one.
    """
    where = (
        "the embedded world, a synthetic city: not comparable with numbers on CVUSA or any other real data set"
        if data == WORLD
        else f"the data set {data}"
    )
    plural = "seed" if len(seeds) == 1 else "seeds"
    return f"Measured on {where}; profile {profile}, {plural} {', '.join(map(str, seeds))}"


# ---------------------------------------------------------------------------------------------------------------- a run


def _name(name: str) -> str:
    if not re.fullmatch(r"[a-z0-9][a-z0-9_]*", name) or name == "results":
        raise InputError(
            "name",
            expected="lower-case letters, digits and underscores, not 'results'",
            found=repr(name),
            todo="Rename it.",
        )
    return name


@dataclass
class Run:
    """One execution of a notebook: what it was asked for, where it writes, and what it has saved so far.

    Attributes:
        notebook: the notebook's name without suffix.
        profile: one of PROFILES.
        data: 'world' or the absolute path of a data set.
        data_id: that, as a short name.
        seed: of everything random in the notebook.
        folder: where its artefacts go.
        measured_on: the data id that tables and figures name.
        started: `time.monotonic()` at the start, in seconds.
        artefacts: what was saved, in order: file, kind, caption.
    """

    notebook: str
    profile: str
    data: str
    data_id: str
    seed: int
    folder: Path
    measured_on: str = WORLD
    started: float = field(default_factory=time.monotonic)
    artefacts: list[dict[str, str]] = field(default_factory=list)

    def provenance(self, settings: Any = None) -> dict[str, Any]:
        """How to make it again: data, profile, seeds, configurations, versions, commit, device; the seconds it took.

        Args:
            settings: the dataclass the numbers came from, or a list of several; None if there is none.
        """
        configs = [] if settings is None else list(settings) if isinstance(settings, (list, tuple)) else [settings]
        return {
            "notebook": self.notebook,
            "data": self.measured_on,
            "profile": self.profile,
            "seeds": [self.seed],
            "settings": [
                {"type": type(c).__name__, "hash": config_hash(c), "values": plain_settings(c)} for c in configs
            ],
            "versions": versions(),
            "commit": commit(),
            "device": device(),
            "seconds": round(time.monotonic() - self.started, 1),
        }

    def _saved(self, file: str, kind: str, caption: str, settings: Any) -> None:
        """Notes an artefact and writes its recipe beside it."""
        taken = [a["file"] for a in self.artefacts if Path(a["file"]).stem == Path(file).stem and a["file"] != file]
        if taken:
            raise InputError(file, expected="a name of its own", found=f"{taken[0]} beside it", todo="Rename one.")
        note = data_note(self.measured_on, self.profile, [self.seed])
        recipe = {"file": file, "caption": caption, "note": note, **self.provenance(settings)}
        write_json(self.folder / f"{Path(file).stem}.json", recipe)
        self.artefacts = [a for a in self.artefacts if a["file"] != file]  # a cell that was run again
        self.artefacts.append({"file": file, "kind": kind, "caption": caption})

    def save_figure(self, figure: "Figure", name: str, *, caption: str, settings: Any = None, dpi: int = 110) -> Path:
        """Saves a matplotlib figure as `<name>.png`, its recipe as `<name>.json`.

        Args:
            figure: the figure; it is neither shown nor closed.
            name: lower-case letters, digits and underscores.
            caption: what there is to see; the recipe adds what it was measured on.
            settings: the dataclass(es) behind it, for the recipe.
            dpi: dots per inch.

        Returns:
            The picture's path.
        """
        path = self.folder / f"{_name(name)}.png"
        self.folder.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f".{path.name}.partial")
        figure.savefig(
            partial,
            format="png",
            dpi=dpi,
            bbox_inches="tight",
            metadata={"Software": None},  # the same picture, byte for byte, from another matplotlib
        )
        with Image.open(partial) as picture:  # 256 colours: photographs at a third of the size, for a repository
            picture.convert("RGB").quantize(256).save(partial, format="PNG", optimize=True)
        partial.replace(path)
        self._saved(path.name, "figure", caption, settings)
        return path

    def save_table(
        self,
        frame: pd.DataFrame,
        name: str,
        *,
        caption: str,
        published: Mapping[str, Sequence[float | None]] | None = None,
        settings: Any = None,
    ) -> "Markdown":
        """Saves a table as `<name>.csv` (to compute with), `<name>.md` (to read) and its recipe as `<name>.json`.

        Args:
            frame: a row a method or setting; measures named as in HEADINGS, in percent. The index is not saved. A
                `seed` column is put first where there is none.
            name: lower-case letters, digits and underscores.
            caption: what the table shows; a line on the data it was measured on is added.
            published: a paper's values, a column each, one value a row (None: not published); saved as
                `published_<column>` behind the columns of `frame`.
            settings: the dataclass(es) behind it, for the recipe.

        Returns:
            The Markdown, which a notebook shows as a table.

        Raises:
            InputError: a wrong name, no rows, a column name that is no text or stands twice, or published values of
                another length.
        """
        from IPython.display import Markdown

        _name(name)
        frame = frame.reset_index(drop=True)
        columns = [*frame.columns, *(f"published_{column}" for column in published or {})]
        if frame.empty or not all(isinstance(c, str) for c in columns) or len(set(columns)) < len(columns):
            raise InputError(
                f"table {name}",
                expected="at least one row, and columns with different texts as names",
                found=f"{len(frame)} rows, columns {columns}",
                todo="Give each column one name.",
            )
        for column, values in (published or {}).items():
            if len(values) != len(frame):
                raise InputError(
                    f"table {name}, published {column}",
                    expected=f"{len(frame)} values, one a row",
                    found=f"{len(values)}",
                    todo="Use None where nothing was published.",
                )
            frame[f"published_{column}"] = pd.Series(list(values), dtype="float64")
        if "seed" not in frame:
            frame.insert(0, "seed", self.seed)
        write_text(
            self.folder / f"{name}.csv", frame.to_csv(index=False, float_format=FLOAT_FORMAT, lineterminator="\n")
        )
        note = data_note(self.measured_on, self.profile, [self.seed])
        text = render_table([pd.read_csv(self.folder / f"{name}.csv")], caption, note)
        write_text(self.folder / f"{name}.md", text)
        self._saved(f"{name}.csv", "table", caption, settings)
        return Markdown(text)

    def finish(self, **numbers: float | str | None) -> Path:
        """Writes results.json: the headline numbers, the list of artefacts, the recipe. The last call of a notebook.

        Args:
            numbers: the notebook's headline numbers, by name.

        Returns:
            The path of results.json.

        Raises:
            InputError: a number is NaN or infinite.
        """
        headline = plain(numbers)
        for key, value in headline.items():
            if isinstance(value, float) and not math.isfinite(value):
                raise InputError(
                    f"finish({key}=...)", expected="a finite number", found=value, todo="Pass None for 'not measured'."
                )
        path = self.folder / "results.json"
        write_json(path, {"numbers": headline, "artefacts": self.artefacts, **self.provenance()})
        return path


def start(notebook: str, *, profile: str, data: str, seed: int, always_world: bool = False) -> Run:
    """Opens a run: call it in the set-up cell of a notebook, after the `parameters` cell.

    Args:
        notebook: the notebook's name without suffix, as `01_projection`.
        profile: one of PROFILES; the environment variable UCVGL_PROFILE overrides it (for CI).
        data: 'world' or the root folder of a data set.
        seed: a whole number >= 0.
        always_world: the notebook's numbers are the embedded world's whatever the data set, and its tables say so.

    Returns:
        The run. It writes to the folder the engine chose (UCVGL_RUN_FOLDER); when a reader steps through, to a folder
        `<notebook>-interactive` under runs/, so that published figures stay as they are.

    Raises:
        InputError: an unknown profile or data set, a negative seed.
    """
    profile = check_profile(os.environ.get("UCVGL_PROFILE") or profile)
    data, seed = check_data(data), check_seed(seed)
    chosen = os.environ.get("UCVGL_RUN_FOLDER")
    folder = Path(chosen) if chosen else run_folder(f"{notebook}-interactive", profile=profile, data=data, seed=seed)
    folder.mkdir(parents=True, exist_ok=True)
    return Run(
        notebook, profile, data, data_id(data), seed, folder, measured_on=WORLD if always_world else data_id(data)
    )


def run_folder(notebook: str, *, profile: str, data: str, seed: int) -> Path:
    """Where one notebook's run with these settings is kept, under runs/."""
    return paths.runs() / "notebooks" / profile / data_id(data) / f"seed{seed}" / notebook


def figure_folder(notebook: str, *, profile: str, data: str) -> Path:
    """Where one notebook's merged results are published, under figures/."""
    return paths.figures() / (profile if data == WORLD else f"{profile}-{data_id(data)}") / notebook


# ----------------------------------------------------------------------------------------------------------- publishing


def _load(folder: Path) -> dict[str, Any]:
    path = folder / "results.json"
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, json.JSONDecodeError) as error:
        raise InputError(
            path, expected="the results.json of a finished run", found=error, todo="Run the notebook again."
        ) from error


def _merge_table(name: str, folders: Sequence[Path], recipe: dict[str, Any], out: Path) -> None:
    texts = [pd.read_csv(folder / f"{name}.csv", dtype=str, keep_default_na=False) for folder in folders]
    merged = pd.concat(texts, ignore_index=True).fillna("")
    write_text(out / f"{name}.csv", merged.to_csv(index=False, lineterminator="\n"))
    frames = [pd.read_csv(folder / f"{name}.csv") for folder in folders]
    note = data_note(recipe["data"], recipe["profile"], recipe["seeds"])
    write_text(out / f"{name}.md", render_table(frames, recipe["caption"], note))


def publish(folders: Sequence[Path], out: Path) -> Path:
    """Merges the runs of one notebook, a folder a seed, into the folder `out`, replacing what was there.

    Tables get the rows of all seeds, and in Markdown mean and spread; figures are the first seed's; every recipe lists
    its seeds. The executed notebooks stay in runs/.

    Args:
        folders: finished runs of the same notebook, profile and data set, in the order of their seeds.
        out: `figures/<profile>/<notebook>`.

    Returns:
        The merged results.json.

    Raises:
        InputError: no folder, an unfinished one, or runs of different notebooks, profiles or data sets.
    """
    if not folders:
        raise InputError("publish", expected="at least one finished run", found="none", todo="Name a run's folder.")
    results = [_load(folder) for folder in folders]
    for key in ("notebook", "profile", "data"):
        values = sorted({str(result[key]) for result in results})
        if len(values) > 1:
            raise InputError("publish", expected=f"runs of one {key}", found=values, todo="Publish them one by one.")
    seeds = [seed for result in results for seed in result["seeds"]]
    partial = out.with_name(f".{out.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)

    artefacts = {artefact["file"]: artefact for result in reversed(results) for artefact in result["artefacts"]}
    order = list(dict.fromkeys(a["file"] for result in results for a in result["artefacts"]))
    for file in order:
        stem = Path(file).stem
        having = [folder for folder, result in zip(folders, results, strict=True) if _has(result, file)]
        recipes = [json.loads((folder / f"{stem}.json").read_text(encoding="utf-8")) for folder in having]
        recipe = dict(recipes[0])
        if artefacts[file]["kind"] == "table":
            recipe["seeds"] = [seed for each in recipes for seed in each["seeds"]]
            recipe["note"] = data_note(recipe["data"], recipe["profile"], recipe["seeds"])
            recipe["seconds"] = round(sum(each["seconds"] for each in recipes), 1)
            _merge_table(stem, having, recipe, partial)
        else:
            shutil.copyfile(having[0] / file, partial / file)
        write_json(partial / f"{stem}.json", recipe)
    merged = {
        **results[0],
        "numbers": {str(r["seeds"][0]): r["numbers"] for r in results},
        "artefacts": [artefacts[file] for file in order],
        "seeds": seeds,
        "seconds": round(sum(r["seconds"] for r in results), 1),
    }
    write_json(partial / "results.json", merged)
    replace_folder(partial, out)
    return out / "results.json"


def _has(result: Mapping[str, Any], file: str) -> bool:
    return any(artefact["file"] == file for artefact in result["artefacts"])
