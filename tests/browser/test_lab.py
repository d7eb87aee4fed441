"""Each notebook in JupyterLab in a real browser: runs with the tiny profile, shows no error, and its controls do something.

The notebooks are copies without outputs, so that every number and picture seen here was made here. They share one run cache,
as a reader's do.
"""

import json
import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

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

# The notebook in front: its kernel's state, and of each code cell its place, first line, number (none until it is done),
# errors, and whether it shows a widget.
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
      widget: outputs(cell).some((o) => "application/vnd.jupyter.widget-view+json" in o.data),
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
# The pixels of all pictures that a cell shows, as text; nothing while one of them is still loading.
PIXELS = """async (cell) => {
  const texts = [];
  for (const picture of cell.querySelectorAll(".jp-OutputArea img, .jp-OutputArea canvas")) {
    if (picture.decode) await picture.decode().catch(() => {});
    const paper = document.createElement("canvas");
    [paper.width, paper.height] = [picture.naturalWidth ?? picture.width, picture.naturalHeight ?? picture.height];
    if (paper.width && paper.height) paper.getContext("2d").drawImage(picture, 0, 0);
    texts.push(paper.toDataURL());
  }
  return texts.join(" ");
}"""
# Whether the pictures become other ones within so many milliseconds. (wait_for_function takes a promise for a yes.)
CHANGED = f"""async (cell, [before, limit]) => {{
  const until = performance.now() + limit;
  while (performance.now() < until) {{
    const now = await ({PIXELS})(cell);
    if (now && now !== before) return true;
    await new Promise((done) => setTimeout(done, 100));
  }}
  return false;
}}"""


class Lab(NamedTuple):
    """A running JupyterLab."""

    url: str
    token: str


@pytest.fixture(scope="module")
def lab(chromium, tmp_path_factory) -> Iterator[Lab]:
    """JupyterLab on loopback, on a free port, with a random token and nobody's settings."""
    home = tmp_path_factory.mktemp("lab")
    for path in NOTEBOOKS:
        _without_outputs(path, home / "notebooks" / path.name)
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
            yield Lab(_address(server, home / "runtime", log), token)
        finally:
            server.terminate()  # it ends its kernels first
            try:
                server.wait(30)
            except subprocess.TimeoutExpired:
                os.killpg(server.pid, signal.SIGKILL)
                server.wait()


def _without_outputs(path: Path, copy: Path) -> None:
    notebook = nbformat.read(path, as_version=4)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    copy.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(notebook, copy)


def _address(server: subprocess.Popen, runtime: Path, log: Path) -> str:
    """Where the server listens, from the file that it writes once it does."""
    until = time.monotonic() + START_S
    while time.monotonic() < until and server.poll() is None:
        for path in runtime.glob("jpserver-*.json"):
            try:
                return json.loads(path.read_text())["url"]
            except json.JSONDecodeError:
                pass  # half written
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
    stem = path.stem
    page.goto(f"{lab.url}lab/workspaces/{stem}/tree/{path.name}?token={lab.token}", timeout=START_S * 1000)
    page.wait_for_function(OPEN, timeout=START_S * 1000)
    page.locator(".lm-MenuBar-itemLabel", has_text="Run").click()
    page.locator(".lm-Menu-itemLabel").get_by_text("Run All Cells", exact=True).click()
    cells = _run(page, stem)
    widgets = []
    for cell in cells:
        where = f"{stem}, cell {cell['at']} [{cell['number']}], '{cell['first']}'"
        shown = page.locator(".jp-Notebook .jp-Cell").nth(cell["at"])
        if cell["widget"] and _controls(shown, where):
            _move_one(shown, where)
            widgets.append(cell["at"])
    assert len(widgets) == _widgets_made(path), f"{stem}: of its widgets, those seen are in cells {widgets}"
    assert page.locator(".jp-Dialog").count() == 0, f"{stem}: {page.locator('.jp-Dialog').first.text_content()}"
    _whole(page, shots / f"lab_{stem}.png")
    for at in widgets:
        shown = page.locator(".jp-Notebook .jp-Cell").nth(at).locator(".jp-OutputArea").first
        shown.screenshot(path=shots / f"lab_{stem}_cell{at}.png")


def _widgets_made(path: Path) -> int:
    """The cells that make one of the package's explorers or browsers."""
    notebook = nbformat.read(path, as_version=4)
    return sum("widgets." in cell.source and cell.cell_type == "code" for cell in notebook.cells)


def _run(page: "Page", stem: str) -> list[dict]:
    """Waits for the end of all cells and returns them; fails with the name of the cell that stopped."""
    from playwright.sync_api import TimeoutError as TooSlow

    try:
        page.wait_for_function(DONE, timeout=RUN_S * 1000, polling=500)
        late = ""
    except TooSlow:
        late = f"not done after {RUN_S} s; "
    state = page.evaluate(STATE)
    told = [f"cell {c['at']} '{c['first']}': {text}" for c in state["cells"] for text in c["errors"]]
    waiting = [f"cell {c['at']} '{c['first']}' is not done" for c in state["cells"] if c["number"] is None]
    if told or waiting or late or state["kernel"] != "idle":
        pytest.fail(f"{stem}: {late}kernel {state['kernel']}; {'; '.join(told + waiting[:1])}")
    return state["cells"]


def _controls(shown: "Locator", where: str) -> "list[tuple[str, Locator, str]]":
    """What can be moved in a cell's widget: kind, element and name; sliders first."""
    shown.scroll_into_view_if_needed()
    shown.locator(".jupyter-widgets").first.wait_for()
    found = []
    for slider in shown.locator(".noUi-handle").all():
        low, high = (float(slider.get_attribute(f"aria-value{end}") or 0) for end in ("min", "max"))
        if high > low:
            found.append(("slider", slider, _label(slider)))
    for choice in shown.locator("select:enabled").all():
        if choice.locator("option").count() > 1:
            found.append(("dropdown", choice, _label(choice)))
    found += [
        ("button", button, button.inner_text()) for button in shown.locator("button.jupyter-button:enabled").all()
    ]
    assert all(name.strip() for _, _, name in found), (
        f"{where}: a control without a name among {[f[::2] for f in found]}"
    )
    return found


def _label(control: "Locator") -> str:
    return control.evaluate("(e) => e.closest('.jupyter-widgets')?.querySelector('.widget-label')?.textContent ?? ''")


def _move_one(shown: "Locator", where: str) -> None:
    """Moves control after control until the picture changes; the first should do."""
    assert shown.evaluate(CHANGED, ["", MOVE_S * 1000]), f"{where}: a widget without a picture"
    tried = []
    for kind, control, name in _controls(shown, where):
        before = shown.evaluate(PIXELS)
        if kind == "slider":
            last = float(control.get_attribute("aria-valuenow")) >= float(control.get_attribute("aria-valuemax"))
            control.press("ArrowLeft" if last else "ArrowRight")
        elif kind == "dropdown":
            now, count = control.evaluate("(e) => e.selectedIndex"), control.locator("option").count()
            control.select_option(index=(now + 1) % count)
        else:
            control.click()
        if shown.evaluate(CHANGED, [before, MOVE_S * 1000]):
            return
        tried.append(f"{kind} '{name}'")
    pytest.fail(f"{where}: no picture changed, moved: {', '.join(tried) or 'nothing, as nothing can be moved'}")


def _whole(page: "Page", path: Path) -> None:
    """A screenshot of the notebook from top to bottom, as far as one window can show it."""
    page.set_viewport_size({**WINDOW, "height": HIGHEST})
    page.mouse.move(0, 0)
    page.locator(".jp-WindowedPanel-outer").first.evaluate("(e) => { e.scrollTop = 0; }")
    page.wait_for_function(LAID_OUT)
    end = page.locator(".jp-Notebook .jp-Cell").last.evaluate("(e) => e.getBoundingClientRect().bottom")
    page.screenshot(path=path, clip={"x": 0, "y": 0, "width": WINDOW["width"], "height": min(end + 40, HIGHEST)})
