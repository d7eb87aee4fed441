"""What a stranger meets first: README, the pages behind it, and the site made of them."""

import os
import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

from ucvgl.paths import ROOT

README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = [ROOT / "README.md", ROOT / "notebooks" / "DATA.md", *sorted((ROOT / "docs").rglob("*.md"))]
LINK = re.compile(r"\]\(([^)#:]+)(?:#[^)]*)?\)")  # to a file, not to an address


def test_readme_is_short_and_links_every_page():
    assert len(README.splitlines()) <= 150
    linked = {(ROOT / link).resolve() for link in LINK.findall(README)}
    assert {page for page in PAGES[1:] if page.parent.name != "api"} <= linked


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_lead_to_files(page):
    missing = [link for link in LINK.findall(page.read_text(encoding="utf-8")) if not (page.parent / link).is_file()]
    assert not missing


@pytest.mark.usefixtures("fresh_runs")
def test_readmes_example_runs(tmp_path, monkeypatch, capsys):
    from ucvgl.world.export import export_world  # loads torch, which the site can do without
    from ucvgl.world.pairs import WorldConfig

    monkeypatch.chdir(tmp_path)
    world = WorldConfig(("garden", "canal"), places=24, spacing_m=6, city_size_m=256, resolution_m=0.5)
    export_world("frames", Path("my_frames"), world, photo_px=32)
    (example,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    Path("example.py").write_text(example)
    runpy.run_path("example.py")
    assert re.search(r"'r_at_1': \d", capsys.readouterr().out)


@pytest.mark.slow
def test_the_site_needs_no_network(tmp_path):
    pytest.importorskip("myst_nb", reason="extra docs: `make site` installs it")
    site = tmp_path / "site"
    command = f"-m sphinx -q --fail-on-warning --keep-going -c docs -d {tmp_path}/trees . {site}".split()
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, *command], cwd=ROOT, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr[-3000:]
    # whatever a browser would load by itself; links that a reader may follow are free
    loads = r"""<(?:script|link|img|iframe|source)\b[^>]*(?:src|href)="(?:https?:)?//|(?:url\(|@import)\s*['"]?(?:https?:)?//"""
    files = [*site.rglob("*.html"), *site.rglob("*.css")]
    assert [path.name for path in files if re.search(loads, path.read_text())] == []
    assert "<math" in (site / "docs" / "equations.html").read_text()
    assert "README.html" in (site / "index.html").read_text()
