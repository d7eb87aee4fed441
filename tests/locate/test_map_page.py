"""map.html: whole in itself, safe from names, small enough; its script's arithmetic and clicks in node, where there is one."""

import base64
import io
import json
import re
import shutil
import subprocess
from html.parser import HTMLParser

import numpy as np
import pytest
import torch
from geo_inputs import at, place, table
from PIL import Image

from ucvgl.locate import located as m

EVIL = "</script><img src=x onerror=alert(1)>&amp;{{DATA}}\u2028'\"`.jpg"
needs_node = pytest.mark.skipif(shutil.which("node") is None, reason="needs node, to run the page's script")


PLACES = (
    place("a.jpg", 0.2, others=[("t1", 20, 0), ("t2", 40, 0)], tile="t0", heading_deg=90.0, notes="dark; tilted"),
    place(EVIL, 0.9, 200, others=[("t1", 220, 0), ("t2", 240, 0)], tile="t0"),
    place("c.jpg", 0.6, 400, others=[(EVIL, 420, 0)], tile="t2"),
)


def grey(value=100, height=8, width=8):
    return torch.full((3, height, width), value, dtype=torch.uint8)


def page(*places, **changes):
    background = grey(9, 20, 60), [at(-100, -100), at(500, 100)]
    given = {"title": "A test", "ground": lambda i: grey(10 * i, 16, 32), "top": lambda i: grey(10 * i + 1),
             "tile": lambda name: grey(7)}  # fmt: skip
    return m.map_page(table(*places or PLACES), background, **{**given, **changes})


class Seen(HTMLParser):
    """What a browser would see: elements with attributes, and the text of scripts and styles."""

    def __init__(self, text):
        super().__init__(convert_charrefs=True)
        self.elements, self.texts, self.inside = [], {}, None
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        self.inside = dict(attrs).get("id", tag)

    def handle_endtag(self, tag):
        self.inside = None

    def handle_data(self, data):
        if self.inside is not None:
            self.texts.setdefault(self.inside, []).append(data)

    def of(self, key):
        return "".join(self.texts[key])


def decoded(text):  # a picture in base64
    return np.array(Image.open(io.BytesIO(base64.b64decode(text))))


def test_places_pictures_and_mosaic_are_all_in_it():
    seen = Seen(page())
    data, pictures = json.loads(seen.of("data")), json.loads(seen.of("pictures"))
    assert [p["picture"] for p in data["places"]] == ["a.jpg", EVIL, "c.jpg"]
    first = data["places"][0]
    assert (first["latitude"], first["longitude"], first["probability"]) == (*at(0, 0), 0.2)
    assert (first["heading_deg"], first["notes"]) == (90, "dark; tilted")
    assert [data["places"][2][f"candidate_{n}_tile"] for n in (1, 2, 3)] == ["t2", EVIL, None]
    assert [len(pictures[kind]) for kind in ("ground", "top")] == [3, 3]
    assert list(pictures["tile"]) == ["t0", "t1", "t2", EVIL]
    for i in range(3):
        assert decoded(pictures["ground"][i]).shape == (16, 32, 3)
        assert abs(decoded(pictures["ground"][i]).astype(int) - 10 * i).max() <= 3
    assert decoded(data["background"].removeprefix("data:image/webp;base64,")).shape == (20, 60, 3)
    assert data["bounds"] == [list(at(-100, -100)), list(at(500, 100))]


def test_names_and_titles_are_data_never_markup():
    text = page(place(EVIL, tile=EVIL), title=EVIL)
    plain, evil = Seen(page(place("a"), title="x")), Seen(text)
    assert [tag for tag, _ in evil.elements] == [tag for tag, _ in plain.elements]
    assert evil.of("title") == evil.of("h1") == json.loads(evil.of("data"))["places"][0]["picture"] == EVIL
    data = text[text.index('id="data">') + 10 :].split("</script>", 1)[0]
    assert not set("<>&\u2028") & set(data)


def test_nothing_is_asked_of_any_network():
    text = page()
    asks = [a for _, a in Seen(text).elements if any(key in ("src", "href", "style") or key[:2] == "on" for key in a)]
    assert not asks
    # Leaflet's home, two reports of browsers' faults, and the name of SVG's elements
    home = ("leafletjs.com", "bugzilla.mozilla.org", "bugs.chromium.org", "www.w3.org")
    assert set(re.findall(r"https?://([\w.]+)", text)) == set(home)
    icons = text.replace("url(images/", "").replace("url(#default#VML)", "")  # which are never shown
    assert "url(" not in icons
    licence = m.Path(m.__file__).parent / "leaflet" / "LICENSE"
    assert "Redistribution and use in source and binary forms" in licence.read_text(encoding="utf-8")


def test_pictures_are_no_larger_than_asked_for_and_those_of_many_places_smaller(monkeypatch):
    monkeypatch.setattr(m, "FULL", 4)
    monkeypatch.setattr(m, "BACKGROUND_PX", 30)
    for count, shape in ((4, (128, 256, 3)), (9, (86, 171, 3))):
        seen = Seen(page(*(place(f"{i}.jpg") for i in range(count)), ground=lambda i: grey(5, 200, 400)))
        assert {decoded(text).shape for text in json.loads(seen.of("pictures"))["ground"]} == {shape}
        assert decoded(json.loads(seen.of("data"))["background"].partition(",")[2]).shape == (10, 30, 3)


def node(code):
    script = m.Path(m.__file__).with_name("map_page.js")
    command = ["node", "-e", f"const m = require({json.dumps(str(script))});\n{code}"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@needs_node
def test_the_scripts_arithmetic():
    found = node("""
        const rows = [["b", 0.5], ["A", 0.9], ["aa", 0.5], ["x", 1]];
        const places = rows.map(([picture, probability]) => ({ picture, probability }));
        console.log(JSON.stringify({
          few: m.chosenFew(places, 0.5, " A "), all: m.chosenFew(places, 0, ""), high: m.chosenFew(places, 0.95, ""),
          colours: [-1, 0, 0.05, 0.5, 1, 2].map((p) => m.colourAt(["#000000", "#ff8040", "#ffffff"], p)),
          circles: [m.circleSize(6e5, 20, 1), m.circleSize(6e5, 2000, 1), m.circleSize(6e5, 2000, 4), m.circleSize(9, 0, 99)],
          odds: [0, 0.004, 0.005, 0.5, 0.994, 0.9951, 1].map(m.probabilityText),
        }));""")
    assert (found["few"], found["all"], found["high"]) == ([1, 2], [3, 1, 0, 2], [3])
    assert found["colours"] == ["rgb(0, 0, 0)", "rgb(0, 0, 0)", "rgb(26, 13, 6)", "rgb(255, 128, 64)", "rgb(255, 255, 255)",
                                "rgb(255, 255, 255)"]  # fmt: skip
    few, crowd, near, speck = found["circles"]
    assert crowd == 3.5 < few < near <= 11
    assert speck == 11
    assert found["odds"] == ["0.00", "< 0.01", "0.01", "0.50", "0.99", "> 0.99", "1.00"]
