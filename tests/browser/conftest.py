"""A headless chromium. `make test-browser` gets one and runs these tests; elsewhere they are skipped, and need no playwright."""

import os
import shutil
from pathlib import Path

import pytest

PROGRAMS = ("chromium", "chromium-browser", "google-chrome")
QUIET = ("--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
         "--disable-component-update", "--disable-sync")  # fmt: skip


@pytest.fixture(scope="session")
def chromium():
    """The browser; a test asks for it before anything slow, so that nothing is made for a test that is skipped."""
    if not os.environ.get("UCVGL_BROWSER"):
        pytest.skip("in a real browser: run `make test-browser`, which sets UCVGL_BROWSER=1")
    from playwright.sync_api import sync_playwright

    program = next((found for found in map(shutil.which, PROGRAMS) if found), None)
    assert program, f"none of {', '.join(PROGRAMS)} is on PATH: run `make test-browser`, or install one of them"
    alone = ["--no-sandbox"] if os.geteuid() == 0 else []  # chromium's sandbox refuses to start as root
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=[*QUIET, *alone])
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def shots(tmp_path_factory):
    """Where screenshots go: UCVGL_SHOTS, or pytest's own temporary folder."""
    named = os.environ.get("UCVGL_SHOTS")
    folder = Path(named).expanduser().resolve() if named else tmp_path_factory.mktemp("shots")
    folder.mkdir(parents=True, exist_ok=True)
    return folder
