"""Absolute folders, each with one environment variable, so that the working directory never matters."""

import os
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def _folder(variable: str, default: Path) -> Path:
    return Path(os.environ.get(variable) or default).expanduser().resolve()


def notebooks() -> Path:
    """The numbered notebooks (UCVGL_NOTEBOOKS)."""
    return _folder("UCVGL_NOTEBOOKS", ROOT / "notebooks")


def runs() -> Path:
    """Everything computed: executed notebooks, cached stages, rendered worlds (UCVGL_RUNS)."""
    return _folder("UCVGL_RUNS", ROOT / "runs")


def figures() -> Path:
    """What `make reproduce` publishes: images, tables, provenance (UCVGL_FIGURES)."""
    return _folder("UCVGL_FIGURES", ROOT / "figures")


def samples() -> Path:
    """Real sample data for tests and one notebook cell; may be absent (UCVGL_SAMPLES)."""
    return _folder("UCVGL_SAMPLES", ROOT.parent / "shared" / "data")
