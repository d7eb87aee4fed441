"""The site (`make site`): README, docs/, the notebooks with their committed outputs, the tables, and the package's science."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

from docutils.nodes import SkipNode
from math_core import LatexToMathML
from mdit_py_plugins.anchors.index import slugify
from sphinx.application import Sphinx

import ucvgl

ROOT = Path(__file__).parents[1]

project, author, version = "ucvgl", "ucvgl's authors", ucvgl.__version__
extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.viewcode"]
root_doc = "README"
include_patterns = ["README.md", "docs/**", "notebooks/*", "figures/laptop/**.md", "benchmarks/results/*.md"]
exclude_patterns = ["**/.ipynb_checkpoints"]
suppress_warnings = ["toc.not_included"]  # the tables: pages that are linked to
nitpicky = True
# other packages' names, whose pages are on the network, and those of the parts that have no page
nitpick_ignore_regex = [("py:.*", r"(?!ucvgl\.).*|ucvgl\.(world|lab|locate)\..*")]

nb_execution_mode = "off"
nb_ipywidgets_js = {}  # would be loaded from the network
myst_enable_extensions = ["dollarmath"]
myst_update_mathjax = False
myst_heading_anchors = 4
default_role = "code"  # docstrings quote names as Markdown does
autodoc_default_options = {"members": True, "member-order": "bysource"}
autodoc_typehints_format = "short"
napoleon_use_rtype = False
strip_signature_backslash = True  # an argument named lambda_ is no link

html_theme = "furo"
html_title = "ucvgl"
html_math_renderer = "mathml"
html_copy_source = False
html_extra_path = ["index.html"]  # sends to README.html


CONTENTS = """
```{toctree}
:hidden:
:caption: CAPTION
:glob:

PAGES
```
"""
CHAPTERS = {"Notebooks": "notebooks/*", "Pages": "docs/*", "Package": "docs/api/*"}


def math(writer, node) -> None:  # noqa: ANN001
    """MathML, which browsers draw by themselves: no script, no network. What cannot be converted is an error."""
    block = node.tagname == "math_block"
    drawing = LatexToMathML().convert_with_local_state(node.astext(), displaystyle=block)
    writer.body.append(f'<div style="overflow-x: auto; padding-bottom: 1em">{drawing}</div>' if block else drawing)
    raise SkipNode


def drawn() -> Iterator[str]:
    """Every published figure, linked to the section of its notebook that draws it."""
    for path in sorted(ROOT.glob("figures/laptop/*/results.json")):
        name, section = path.parent.name, {}
        notebook = json.loads((ROOT / "notebooks" / f"{name}.ipynb").read_text(encoding="utf-8"))
        heading = title = notebook["cells"][0]["source"][0].strip("# \n")
        for cell in notebook["cells"]:
            source = "".join(cell["source"])
            if cell["cell_type"] == "markdown":
                heading = (re.findall(r"(?m)^#+ (.*)$", source) or [heading])[-1]
            else:
                section |= dict.fromkeys(re.findall(r'"(\w+)"', source), heading)
        yield f"## {title}\n"
        for artefact in json.loads(path.read_text(encoding="utf-8"))["artefacts"]:
            file, caption = artefact["file"], artefact["caption"]
            if artefact["kind"] == "figure":
                place = f"../notebooks/{name}.ipynb#{slugify(section.get(file.removesuffix('.png'), title))}"
                yield f"[![{caption}](../figures/laptop/{name}/{file})]({place})\n\n*{caption}*\n"


def read(app: Sphinx, page: str, source: list[str]) -> None:
    """What the site adds: contents, figures, a table's title; and a name that is linked to its file leads to the reference."""
    if page == "README":
        source[0] += "".join(CONTENTS.replace("CAPTION", c).replace("PAGES", p) for c, p in CHAPTERS.items())
    if page == "docs/figures":
        source[0] += "\n".join(drawn())
    if page.startswith("figures/"):
        *_, notebook, table = page.split("/")
        words = f"A table of [{notebook}](../../../notebooks/{notebook}.ipynb).\n\n" if notebook[0].isdigit() else ""
        source[0] = f"# {table.replace('_', ' ').capitalize()}\n\n{words}{source[0]}"
    if not page.startswith("notebooks/0"):
        source[0] = re.sub(r"\[`([\w.]+)`\]\((?:\.\./)*ucvgl/[\w/]+\.py\)", r"[`\1`](#ucvgl.\1)", source[0])


def setup(app: Sphinx) -> None:
    """Called by Sphinx."""
    app.add_html_math_renderer("mathml", (math, None), (math, None))
    app.connect("source-read", read)
