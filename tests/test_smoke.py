"""`ROWS=smoke` of the paper profile: each real layout, at its published image sizes, with a few dozen places of the world, runs
its notebooks to their end. Minutes each, so UCVGL_NIGHTLY=1 has to ask for them."""

import os
import subprocess
import sys

import pytest

PANORAMAS = {"04_curriculum/main": "published_cvusa_r_at_1", "05_sample4geo/sampling": "published_cvact_val_r_at_1"}
UNIVERSITY = {"05_sample4geo/drone": "published_university1652_ap"}
SUES = {"05_sample4geo/heights": "published_leaderboard_r_at_1"}
PLACES = {"06_vg_ssl/main": "std"}
# options of the export, of drone images the layout, and what must stand in the tables; of VIGOR notebook 05 shows a dozen tiles of
# its first part
LAYOUTS = {
    "cvusa": ("--places 24 --panorama-px 616 --tile-px 750", "university1652", PANORAMAS | UNIVERSITY),
    "cvact": ("--places 24 --panorama-px 832 --tile-px 600", "sues200", PANORAMAS | SUES),
    "vigor": ("--places 64 --panorama-px 1024 --tile-px 640", "", PANORAMAS),
    "vpr": ("--places 24 --photo-px 640", "", PLACES),
    "frames": ("--places 24 --photo-px 640", "", PLACES),
}


@pytest.mark.slow
@pytest.mark.skipif(not os.environ.get("UCVGL_NIGHTLY"), reason="minutes a layout; UCVGL_NIGHTLY=1 runs them")
@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_layout_runs_to_its_end(layout, tmp_path, monkeypatch):
    options, drone, wanted = LAYOUTS[layout]
    for name in ("runs", "figures"):
        monkeypatch.setenv(f"UCVGL_{name.upper()}", str(tmp_path / name))

    def ucvgl(*arguments):
        done = subprocess.run([sys.executable, "-m", "ucvgl.cli", *arguments], capture_output=True, text=True)
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]

    def export(name, options):
        root = str(tmp_path / name)
        ucvgl("data", "export", "world", root, "--layout", name, "--city-size-m", "512", *options.split())
        return root

    given = ["--data", export(layout, options)]
    given += ["--drone", export(drone, "--places 12 --photo-px 512 --tile-px 512")] if drone else []
    ucvgl("reproduce", "--profile", "paper", "--rows", "smoke", "--cores", "2", *given)
    (figures,) = (tmp_path / "figures").glob("paper-*")
    for table, column in wanted.items():
        assert column in (figures / f"{table}.csv").read_text().partition("\n")[0].split(",")
