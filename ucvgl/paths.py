"""Absolute folders, each with one environment variable; files that are written whole or not at all; locks on them."""

import hashlib
import json
import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

ROOT = Path(__file__).resolve().parent.parent
HOME = ROOT if (ROOT / "pyproject.toml").is_file() else Path.cwd()  # installed without its repository


def _folder(name: str, default: Path | None = None) -> Path:
    return Path(os.environ.get(f"UCVGL_{name.upper()}") or default or HOME / name).expanduser().resolve()


def notebooks() -> Path:
    """The numbered notebooks (UCVGL_NOTEBOOKS)."""
    return _folder("notebooks")


def runs() -> Path:
    """Everything computed: executed notebooks, cached stages, rendered worlds (UCVGL_RUNS)."""
    return _folder("runs")


def figures() -> Path:
    """What `make reproduce` publishes: images, tables, provenance (UCVGL_FIGURES)."""
    return _folder("figures")


def samples() -> Path:
    """Real sample data for tests and one notebook cell (UCVGL_SAMPLES); where that is unset, a folder that never exists."""
    return _folder("samples", Path(os.devnull, "UCVGL_SAMPLES is not set"))


def files_digest(root: str) -> str:
    """Changes with the name, the size or the time of any file below a data set's folder; links are followed, once."""
    digest, seen = hashlib.sha256(), set()
    for folder, folders, names in os.walk(root, followlinks=True):
        if os.path.realpath(folder) in seen:
            folders.clear()
            continue
        seen.add(os.path.realpath(folder))
        folders.sort()
        for name in sorted(names):
            path = Path(folder, name)
            stat = path.stat() if path.exists() else None
            digest.update(f"{path} {stat and (stat.st_size, stat.st_mtime_ns)}\n".encode(errors="surrogateescape"))
    return digest.hexdigest()


def plain(value: Any) -> Any:
    """A value as it comes back from JSON; TypeError for what has no such form."""
    return json.loads(json.dumps(value, default=_plain_leaf))


def _plain_leaf(value: Any) -> Any:
    """Paths, and numpy's and torch's scalars, which JSON has no form for."""
    if isinstance(value, Path):
        return str(value)
    if hasattr(value, "item") and not getattr(value, "shape", ()):
        return value.item()
    raise TypeError(f"a setting must be made of numbers, texts, sequences and mappings, not {type(value).__name__}")


@contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """A temporary name to write to, renamed to `path` at the end, so that readers see the old or the new file, whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        yield partial
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)  # a full disk, Ctrl-C


def write_text(path: Path, text: str) -> None:
    """Writes a text file atomically."""
    with written_whole(path) as partial:
        partial.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """Writes JSON atomically, indented, keys in their given order; NaN and infinity raise ValueError."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False, default=_plain_leaf) + "\n")


def replace_folder(new: Path, target: Path) -> None:
    """Puts the finished folder `new` in the place of `target` (same file system), removing what was there."""
    old = target.with_name(f".{target.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if target.exists():
        target.replace(old)
    new.replace(target)
    shutil.rmtree(old, ignore_errors=True)


@contextmanager
def waiting_for(path: Path, busy: str) -> Iterator[None]:
    """Holds the lock on a file, which ends with its process, however that ends; where another has it, says `busy` and waits."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path)
    try:
        held = lock.acquire(blocking=False)
    except Timeout:
        sys.stderr.write(f"{busy}: waiting for it\n")
        held = lock.acquire()
    with held:
        yield
