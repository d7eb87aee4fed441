"""Each notebook in JupyterLab in a real browser: runs with the tiny profile, shows no error, and its controls do something.

The notebooks are copies without outputs, so that every number and picture seen here was made here. They share one run cache,
as a reader's do.
"""

import json
import os
import re
import secrets
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import nbformat
import pytest

from ucvgl import paths

if TYPE_CHECKING:
    from playwright.sync_api import Locator, Page

pytestmark = pytest.mark.browser

NOTEBOOKS = sorted(paths.notebooks().glob("[0-9][0-9]_*.ipynb"))
# Seconds for a machine that is busy with other work; nothing waits that long on a free one.
START_S, RUN_S, MOVE_S = 300, 1200, 120
WINDOW = {"width": 1280, "height": 900}
HIGHEST = 16_000  # window that a browser still paints
QUIET = {"fetchNews": "false", "checkForUpdates": False}

# The notebook in front: its kernel's state, and of each code cell its place, first line, number (none until it is done), errors.
STATE = """() => {
  const panel = window.jupyterapp.shell.currentWidget;
  const cells = [...panel.content.model.cells].map((cell, at) => ({ cell, at })).filter(({ cell }) => cell.type === "code");
  const outputs = (cell) => Array.from({ length: cell.outputs.length }, (_, i) => cell.outputs.get(i));
  return {
    kernel: panel.sessionContext.session?.kernel?.status ?? "none",
    cells: cells.map(({ cell, at }) => ({
      at,
      first: cell.sharedModel.source.split("\\n")[0],
      number: cell.executionState === "idle" ? cell.executionCount : null,
      errors: outputs(cell).filter((o) => o.type === "error").map((o) => `${o.toJSON().ename}: ${o.toJSON().evalue}`),
    })),
  };
}"""
# All cells in the window are laid out; of one out of sight JupyterLab only guesses the height.
LAID_OUT = """() => [...document.querySelectorAll(".jp-Notebook .jp-Cell")].every(
  (cell) => cell.getBoundingClientRect().top > innerHeight || cell.checkVisibility({ contentVisibilityAuto: true }))"""
OPEN = """() => {
  const panel = window.jupyterapp?.shell.currentWidget;
  return panel?.context?.isReady && panel.sessionContext?.session?.kernel?.status === "idle";
}"""
DONE = f"""() => {{
  const {{ kernel, cells }} = ({STATE})();
  const stopped = cells.some((cell) => cell.errors.length) || ["none", "dead", "restarting", "autorestarting"].includes(kernel);
  return stopped || (kernel === "idle" && cells.every((cell) => cell.number !== null));
}}"""
# All pictures that a cell shows, as text: they stand in the page itself.
PICTURES = """(cell) => [...cell.querySelectorAll(".jp-OutputArea img")].map((image) => image.src).join(" ")"""
CHANGED = f"([cell, before]) => ({PICTURES})(cell) !== before"


@pytest.fixture(scope="module")
def lab(chromium, tmp_path_factory) -> Iterator[tuple[str, str]]:
    """Address and token of a JupyterLab on loopback, on a free port, with nobody's settings."""
    home = tmp_path_factory.mktemp("lab")
    (home / "notebooks").mkdir()
    for path in NOTEBOOKS:
        notebook = nbformat.read(path, as_version=4)
        for cell in notebook.cells:
            cell.update({"outputs": [], "execution_count": None} if cell.cell_type == "code" else {})
        nbformat.write(notebook, home / "notebooks" / path.name)
    settings = home / "settings" / "@jupyterlab" / "apputils-extension" / "notification.jupyterlab-settings"
    settings.parent.mkdir(parents=True)
    settings.write_text(json.dumps(QUIET))
    token = secrets.token_urlsafe(24)
    folders = {"JUPYTER_CONFIG_DIR": "config", "JUPYTER_DATA_DIR": "data", "JUPYTER_RUNTIME_DIR": "runtime",
               "JUPYTERLAB_SETTINGS_DIR": "settings", "JUPYTERLAB_WORKSPACES_DIR": "workspaces", "IPYTHONDIR": "ipython",
               "UCVGL_RUNS": "runs", "UCVGL_FIGURES": "figures"}  # fmt: skip
    own = {name: str(home / folder) for name, folder in folders.items()}
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", "--ip=127.0.0.1",
               "--ServerApp.port=0", "--ServerApp.port_retries=0", f"--ServerApp.root_dir={home / 'notebooks'}",
               "--LabApp.expose_app_in_browser=True", "--LabApp.extension_manager=readonly"]  # fmt: skip
    log = home / "log.txt"
    with log.open("w") as out:
        server = subprocess.Popen(
            command, stdout=out, stderr=out, cwd=home, start_new_session=True,
            env={**os.environ, **own, "JUPYTER_TOKEN": token, "UCVGL_PROFILE": "tiny"},
        )  # fmt: skip
        try:
            yield _address(server, home / "runtime", log), token
        finally:
            server.terminate()  # it ends its kernels first
            server.wait(60)


def _address(server: subprocess.Popen, runtime: Path, log: Path) -> str:
    """Where the server listens, from the file that it writes once it does."""
    until = time.monotonic() + START_S
    while time.monotonic() < until and server.poll() is None:
        for path in runtime.glob("jpserver-*.json"):
            with suppress(json.JSONDecodeError):  # half written
                return json.loads(path.read_text())["url"]
        time.sleep(0.1)
    pytest.fail(f"JupyterLab did not start:\n{log.read_text()[-3000:]}")


@pytest.fixture
def page(chromium, lab) -> "Iterator[Page]":
    """A window of its own for each notebook; its kernel ends with it."""
    context = chromium.new_context(viewport=WINDOW)
    context.set_default_timeout(MOVE_S * 1000)
    page = context.new_page()
    yield page
    page.evaluate("() => window.jupyterapp?.shell.currentWidget?.sessionContext?.shutdown()")
    context.close()


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs_and_its_controls_change_their_pictures(page, lab, shots, path):
    stem, (url, token) = path.stem, lab
    page.goto(f"{url}lab/workspaces/{stem}/tree/{path.name}?token={token}", timeout=START_S * 1000)
    page.wait_for_function(OPEN, timeout=START_S * 1000)
    page.locator(".lm-MenuBar-itemLabel", has_text="Run").click()
    page.locator(".lm-Menu-itemLabel").get_by_text("Run All Cells", exact=True).click()
    _run(page, stem)
    cells = nbformat.read(path, as_version=4).cells
    code = [(at, cell.source) for at, cell in enumerate(cells) if cell.cell_type == "code"]
    widgets = [at for at, source in code if re.search(r"browse\(|widgets\.", source)]
    for at in widgets:
        where = f"{stem}, cell {at}, {cells[at].source.splitlines()[0]!r}"
        _move_one(page, page.locator(".jp-Notebook .jp-Cell").nth(at), where)
    assert page.locator(".jp-Dialog").count() == 0, f"{stem}: {page.locator('.jp-Dialog').first.text_content()}"
    _whole(page, shots / f"lab_{stem}.png")
    for at in widgets:
        shown = page.locator(".jp-Notebook .jp-Cell").nth(at).locator(".jp-OutputArea").first
        shown.screenshot(path=shots / f"lab_{stem}_cell{at}.png")


def _run(page: "Page", stem: str) -> None:
    """Waits for the end of all cells; fails with the name of the cell that stopped."""
    from playwright.sync_api import TimeoutError as TooSlow

    with suppress(TooSlow):
        page.wait_for_function(DONE, timeout=RUN_S * 1000, polling=500)
    state = page.evaluate(STATE)
    told = [f"cell {c['at']} '{c['first']}': {text}" for c in state["cells"] for text in c["errors"]]
    waiting = [f"cell {c['at']} '{c['first']}' is not done" for c in state["cells"] if c["number"] is None]
    assert state["kernel"] == "idle", f"{stem}: kernel {state['kernel']}; {told + waiting[:1]}"
    assert not told + waiting[:1], stem


def _move_one(page: "Page", shown: "Locator", where: str) -> None:
    """Moves the cell's first slider, or else dropdown, that has somewhere to go: the picture changes."""
    shown.scroll_into_view_if_needed()
    shown.locator(".jupyter-widgets img").first.wait_for()
    labels = shown.locator(":is(.widget-slider, .widget-dropdown) .widget-label").all()
    names = [label.text_content() for label in labels]
    assert all(name.strip() for name in names), f"{where}: a control without a name among {names}"
    before = shown.evaluate(PICTURES)
    for slider in shown.locator(".noUi-handle").all():
        now, low, high = (float(slider.get_attribute(f"aria-value{end}")) for end in ("now", "min", "max"))
        if high > low:
            slider.press("ArrowLeft" if now >= high else "ArrowRight")
            break
    else:
        choice = shown.locator("select:enabled").first
        choice.select_option(index=1 - min(1, choice.evaluate("(e) => e.selectedIndex")))
    page.wait_for_function(CHANGED, arg=[shown.element_handle(), before], timeout=MOVE_S * 1000)


def _whole(page: "Page", path: Path) -> None:
    """A screenshot of the notebook from top to bottom, as far as one window can show it."""
    page.set_viewport_size({**WINDOW, "height": HIGHEST})
    page.mouse.move(0, 0)
    page.locator(".jp-WindowedPanel-outer").first.evaluate("(e) => { e.scrollTop = 0; }")
    page.wait_for_function(LAID_OUT)
    end = page.locator(".jp-Notebook .jp-Cell").last.evaluate("(e) => e.getBoundingClientRect().bottom")
    page.screenshot(path=path, clip={"x": 0, "y": 0, "width": WINDOW["width"], "height": min(end + 40, HIGHEST)})
