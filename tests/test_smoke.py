"""`ROWS=smoke` of the paper profile: each real layout, at its published image sizes, with a few dozen places of the world, runs
its notebooks to their end. Minutes each, so UCVGL_NIGHTLY=1 has to ask for them."""

import os
import subprocess
import sys

import pytest

PUBLISHED = {"04_curriculum/main": "published_cvusa_r_at_1", "05_sample4geo/sampling": "published_cvact_val_r_at_1"}
PLACES = {"06_vg_ssl/main": "std"}
# options of the export, and what must stand in the tables; of VIGOR notebook 05 shows a dozen tiles of its first part
LAYOUTS = {
    "cvusa": ("--places 24 --panorama-px 616 --tile-px 750", PUBLISHED),
    "cvact": ("--places 24 --panorama-px 832 --tile-px 600", PUBLISHED),
    "vigor": ("--places 64 --panorama-px 1024 --tile-px 640", PUBLISHED),
    "vpr": ("--places 24 --photo-px 640", PLACES),
    "frames": ("--places 24 --photo-px 640", PLACES),
}


@pytest.mark.slow
@pytest.mark.skipif(not os.environ.get("UCVGL_NIGHTLY"), reason="minutes a layout; UCVGL_NIGHTLY=1 runs them")
@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_layout_runs_to_its_end(layout, tmp_path, monkeypatch):
    options, wanted = LAYOUTS[layout]
    for name in ("runs", "figures"):
        monkeypatch.setenv(f"UCVGL_{name.upper()}", str(tmp_path / name))

    def ucvgl(*arguments):
        done = subprocess.run([sys.executable, "-m", "ucvgl.cli", *arguments], capture_output=True, text=True)
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]

    ucvgl(
        "data", "export", "world", str(tmp_path / "data"), "--layout", layout, "--city-size-m", "512", *options.split()
    )
    ucvgl("reproduce", "--profile", "paper", "--data", str(tmp_path / "data"), "--rows", "smoke", "--cores", "1")
    (figures,) = (tmp_path / "figures").glob("paper-*")
    for table, column in wanted.items():
        assert column in (figures / f"{table}.csv").read_text().partition("\n")[0].split(",")
