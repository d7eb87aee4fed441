"use strict";
// The map of map_page.html. Data comes from two JSON elements; `pictures`, the large one, is parsed at the first choice.
// Texts reach the page through textContent alone: a file's name is never markup.

const EARTH_M = 6371008.8; // as positions.py
const LISTED = 100; // pictures in the list at a time

// ------------------------------------------------------------------------------------- arithmetic, without the page

/** Web Mercator in radians: [x, y], y to the north. */
function project(lat, lon) {
  return [(lon * Math.PI) / 180, Math.asinh(Math.tan((lat * Math.PI) / 180))];
}

/** Pixel of a projected point, in a view {x, y, scale} centred in width x height. */
function toPixel(view, width, height, [x, y]) {
  return [width / 2 + (x - view.x) * view.scale, height / 2 - (y - view.y) * view.scale];
}

/** The projected point under a pixel. */
function toPoint(view, width, height, [left, top]) {
  return [view.x + (left - width / 2) / view.scale, view.y - (top - height / 2) / view.scale];
}

/** The view that shows a box [x0, y0, x1, y1] whole, with a margin. */
function fitted([x0, y0, x1, y1], width, height) {
  const least = 2e-6; // about 13 m, where there is only one point
  const scale = 0.92 * Math.min(width / Math.max(x1 - x0, least), height / Math.max(y1 - y0, least));
  return { x: (x0 + x1) / 2, y: (y0 + y1) / 2, scale };
}

/** The view after a zoom by `factor` that leaves the point under `pixel` where it is. */
function zoomed(view, width, height, pixel, factor, least, most) {
  const scale = Math.min(most, Math.max(least, view.scale * factor));
  const [x, y] = toPoint(view, width, height, pixel);
  return { x: x - (pixel[0] - width / 2) / scale, y: y + (pixel[1] - height / 2) / scale, scale };
}

/** Metres a pixel covers at the view's centre. */
function metresAPixel(view) {
  return EARTH_M / (view.scale * Math.cosh(view.y));
}

/** The greatest of 1, 2, 5, 10, ... metres that is no longer than `metres`. */
function roundLength(metres) {
  const ten = 10 ** Math.floor(Math.log10(metres));
  return ten * [5, 2, 1].find((step) => step * ten <= metres * (1 + 1e-9));
}

/** The colour of a probability, between the stops of `scale` ("#rrggbb"). */
function colourAt(scale, p) {
  const at = Math.min(1, Math.max(0, p)) * (scale.length - 1);
  const low = Math.min(Math.floor(at), scale.length - 2);
  const channel = (colour, i) => parseInt(colour.slice(1 + 2 * i, 3 + 2 * i), 16);
  const mixed = [0, 1, 2].map((i) => {
    const from = channel(scale[low], i);
    return Math.round(from + (channel(scale[low + 1], i) - from) * (at - low));
  });
  return `rgb(${mixed.join(", ")})`;
}

/** Indices of the places with a probability of `least` or more and `text` in the name, the most probable first. */
function chosenFew(places, least, text) {
  const wanted = text.trim().toLowerCase();
  return places
    .map((place, i) => i)
    .filter((i) => places[i].p >= least && places[i].name.toLowerCase().includes(wanted))
    .sort((a, b) => places[b].p - places[a].p || a - b);
}

/** Radius of a place's circle: 7 pixels and a little more when zoomed in, less where many share the area. */
function circleSize(area, count, zoom) {
  const room = (Math.sqrt(area / Math.max(1, count)) * zoom) / 5;
  return Math.max(3.5, Math.min(11, room, 1.2 * Math.log2(4 * zoom + 1) + 4));
}

/** A probability with two digits that never rounds to certainty. */
function probabilityText(p) {
  if (p > 0 && p < 0.005) return "< 0.01";
  return p >= 0.995 && p < 1 ? "> 0.99" : p.toFixed(2);
}

/** What is known of the distance to the true place, in words. */
function radiusText(r50, r90) {
  if (r50 === null) return "The evidence does not bound where it is.";
  const high = r90 === null ? "; not bounded for 90 %" : `, within ${r90} m with 90 %`;
  return `Within ${r50} m with 50 %${high}.`;
}

// --------------------------------------------------------------------------------------------------------- the page

function start() {
  const find = (id) => document.getElementById(id);
  const data = JSON.parse(find("data").textContent);
  const { places, tiles, scale } = data;
  const points = places.map((place) => project(place.lat, place.lon));
  const canvas = find("canvas");
  const paper = canvas.getContext("2d");
  const backgrounds = data.backgrounds.map((b) => {
    const image = new Image();
    image.onload = draw;
    image.src = b.src;
    return { image, low: project(b.south, b.west), high: project(b.north, b.east) };
  });
  const corners = [...points, ...backgrounds.flatMap((b) => [b.low, b.high])];
  const [xs, ys] = [corners.map((c) => c[0]), corners.map((c) => c[1])];
  const least = (values) => values.reduce((a, b) => Math.min(a, b));
  const most = (values) => values.reduce((a, b) => Math.max(a, b));
  const box = [least(xs), least(ys), most(xs), most(ys)];

  let width = 1, height = 1, view = null, limits = [1, 1];
  let chosen = -1, shown = chosenFew(places, 0, ""), pictures = null, waiting = false;

  // ----- drawing

  function draw() {
    if (waiting) return;
    waiting = true;
    requestAnimationFrame(() => {
      waiting = false;
      paint();
    });
  }

  function paint() {
    if (!view) return;
    const at = (point) => toPixel(view, width, height, point);
    paper.clearRect(0, 0, width, height);
    for (const { image, low, high } of backgrounds) {
      if (!image.complete || !image.naturalWidth) continue;
      const [left, bottom] = at(low);
      const [right, top] = at(high);
      paper.drawImage(image, left, top, right - left, bottom - top);
    }
    const size = circleSize(width * height, shown.length, view.scale / (4 * limits[0]));
    for (const i of [...shown].reverse()) circle(at(points[i]), size, colourAt(scale, places[i].p), 1.5);
    if (chosen >= 0) {
      const own = places[chosen];
      const centre = at(points[chosen]);
      if (own.r50 !== null) ring(centre, own.r50 / metresAPixel(view));
      own.best.forEach(([, lat, lon], rank) => {
        if (rank === 0) return;
        const [x, y] = at(project(lat, lon));
        line(centre, [x, y]);
        paper.fillStyle = "#ffffff";
        paper.strokeStyle = "#000000";
        paper.fillRect(x - 9, y - 9, 18, 18);
        paper.strokeRect(x - 9, y - 9, 18, 18);
        paper.fillStyle = "#000000";
        paper.font = "13px system-ui, sans-serif";
        paper.textAlign = "center";
        paper.textBaseline = "middle";
        paper.fillText(String(rank + 1), x, y + 1);
      });
      circle(centre, size + 4, colourAt(scale, own.p), 4);
    }
    if (backgrounds.every(({ image }) => image.complete)) {
      document.documentElement.dataset.painted ??= String(Math.round(performance.now())); // milliseconds, for tests
    }
    const room = 150;
    const metres = roundLength(room * metresAPixel(view));
    find("ruler").style.width = `${metres / metresAPixel(view)}px`;
    find("length").textContent = metres >= 1000 ? `${metres / 1000} km` : `${metres} m`;
  }

  function circle([x, y], size, colour, edge) {
    paper.beginPath();
    paper.arc(x, y, size, 0, 2 * Math.PI);
    paper.fillStyle = colour;
    paper.fill();
    paper.lineWidth = edge + 1.5; // dark around white: seen on any ground
    paper.strokeStyle = "#000000";
    paper.stroke();
    paper.lineWidth = edge;
    paper.strokeStyle = "#ffffff";
    paper.stroke();
    paper.lineWidth = 1;
  }

  function ring([x, y], radius) {
    paper.beginPath();
    paper.arc(x, y, radius, 0, 2 * Math.PI);
    paper.fillStyle = "rgba(255, 255, 255, 0.25)";
    paper.fill();
    paper.strokeStyle = "#ffffff";
    paper.lineWidth = 2;
    paper.stroke();
    paper.lineWidth = 1;
  }

  function line(from, to) {
    for (const [colour, thick] of [["#000000", 4], ["#ffffff", 2]]) {
      paper.beginPath();
      paper.moveTo(...from);
      paper.lineTo(...to);
      paper.strokeStyle = colour;
      paper.lineWidth = thick;
      paper.stroke();
    }
    paper.lineWidth = 1;
  }

  // ----- moving

  function resize() {
    const seen = canvas.getBoundingClientRect();
    if (!seen.width || !seen.height) return;
    [width, height] = [seen.width, seen.height];
    const fine = window.devicePixelRatio || 1;
    canvas.width = Math.round(width * fine);
    canvas.height = Math.round(height * fine);
    paper.setTransform(fine, 0, 0, fine, 0, 0);
    const whole = fitted(box, width, height);
    limits = [whole.scale / 4, Math.max(whole.scale, (20 * EARTH_M) / Math.cosh(whole.y))]; // to 20 pixels a metre
    view = view || whole;
    paint(); // at once: a canvas whose size was set is empty
  }

  function zoom(factor, pixel) {
    if (view) view = zoomed(view, width, height, pixel || [width / 2, height / 2], factor, ...limits);
    draw();
  }

  function move(right, down) {
    if (view) view = { ...view, x: view.x + right / view.scale, y: view.y - down / view.scale };
    draw();
  }

  function all() {
    view = fitted(box, width, height);
    draw();
  }

  const fingers = new Map(); // pointer -> where it is
  let travelled = 0;

  const pixelOf = (event) => {
    const seen = canvas.getBoundingClientRect();
    return [event.clientX - seen.left, event.clientY - seen.top];
  };

  canvas.addEventListener("pointerdown", (event) => {
    if (event.button > 0) return;
    if (!fingers.size) travelled = 0;
    fingers.set(event.pointerId, pixelOf(event));
    if (fingers.size > 1) travelled = Infinity; // no tap
    canvas.setPointerCapture(event.pointerId);
  });

  canvas.addEventListener("pointermove", (event) => {
    const before = fingers.get(event.pointerId);
    if (!before) return;
    const now = pixelOf(event);
    const others = [...fingers].filter(([id]) => id !== event.pointerId);
    fingers.set(event.pointerId, now);
    if (others.length) {
      const still = others[0][1];
      const apart = (a) => Math.max(10, Math.hypot(a[0] - still[0], a[1] - still[1]));
      const middle = (a) => [(a[0] + still[0]) / 2, (a[1] + still[1]) / 2];
      zoom(apart(now) / apart(before), middle(before));
      move(middle(before)[0] - middle(now)[0], middle(before)[1] - middle(now)[1]);
    } else {
      travelled += Math.hypot(now[0] - before[0], now[1] - before[1]);
      if (travelled > 6) move(before[0] - now[0], before[1] - now[1]);
    }
  });

  canvas.addEventListener("pointerup", (event) => {
    if (!fingers.delete(event.pointerId) || travelled > 6) return;
    const [x, y] = pixelOf(event);
    let best = -1, near = event.pointerType === "touch" ? 26 : 16;
    for (const i of shown) {
      const [left, top] = toPixel(view, width, height, points[i]);
      const away = Math.hypot(left - x, top - y);
      if (away < near) [best, near] = [i, away];
    }
    if (best >= 0) choose(best, false);
  });

  canvas.addEventListener("pointercancel", (event) => fingers.delete(event.pointerId));

  canvas.addEventListener("wheel", (event) => {
    event.preventDefault();
    const lines = event.deltaMode === 1 ? 30 : 1;
    zoom(Math.exp(-Math.max(-200, Math.min(200, event.deltaY * lines)) / 300), pixelOf(event));
  }, { passive: false });

  canvas.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const next = (step) => shown.length && choose(shown[(shown.indexOf(chosen) + step + shown.length) % shown.length], true);
    const keys = {
      ArrowLeft: () => move(-60, 0), ArrowRight: () => move(60, 0), ArrowUp: () => move(0, -60),
      ArrowDown: () => move(0, 60), "+": () => zoom(1.5), "=": () => zoom(1.5), "-": () => zoom(1 / 1.5), 0: all,
      n: () => next(1), p: () => next(shown.includes(chosen) ? -1 : 0),
    };
    const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
    if (!Object.hasOwn(keys, key)) return;
    event.preventDefault();
    keys[key]();
  });

  find("closer").addEventListener("click", () => zoom(1.5));
  find("farther").addEventListener("click", () => zoom(1 / 1.5));
  find("all").addEventListener("click", all);

  // ----- one picture

  function make(tag, text, name) {
    const element = document.createElement(tag);
    if (text !== undefined) element.textContent = text;
    if (name) element.className = name;
    return element;
  }

  function small(kind, i, about, name) {
    pictures = pictures || JSON.parse(find("pictures").textContent);
    const coded = pictures[kind][i];
    if (!coded) return make("p", "No picture in this page.", "left-out");
    const image = make("img", undefined, name);
    image.alt = about;
    image.src = `data:image/webp;base64,${coded}`;
    return image;
  }

  function choose(i, bring) {
    chosen = i;
    const place = places[i];
    const panel = find("chosen");
    const rows = [
      make("h2", place.name),
      make("p", `Probability ${probabilityText(place.p)}. ${radiusText(place.r50, place.r90)}`),
      make("p", `${place.lat.toFixed(6)}, ${place.lon.toFixed(6)}`
        + (place.heading === null ? "" : `; its centre looks to ${place.heading.toFixed(0)}°`)),
      ...place.notes.map((note) => make("p", `Note: ${note}.`)),
      small("ground", i, `The picture ${place.name}`, "ground"),
    ];
    const grid = make("div", undefined, "grid"); // the top view beside what it is to be compared with
    if (pictures.top[i]) {
      const above = make("div");
      above.append(small("top", i, `Top view of ${place.name}`), make("div", "Its top view"));
      grid.append(above);
    }
    const list = make("ol");
    place.best.forEach(([tile, , , score, away], rank) => {
      const item = make("li");
      item.append(small("tile", tile, `Candidate ${rank + 1}, ${tiles[tile]}`));
      item.append(make("div", `${rank + 1}. ${rank ? `${away} m away` : "taken as its place"}, score ${score.toFixed(3)}`));
      item.append(make("div", tiles[tile]));
      list.append(item);
    });
    grid.append(list);
    rows.push(make("h3", pictures.top[i] ? "Seen from above, and its best candidates" : "Best candidates"), grid);
    rows.push(make("p", `On the map: ${place.r50 === null ? "" : "a circle of 50 %, and "}the other candidates by number.`, "hint"));
    panel.replaceChildren(...rows);
    for (const button of find("list").querySelectorAll("button")) {
      button.setAttribute("aria-current", String(Number(button.dataset.place) === i));
    }
    if (bring && view) {
      const [x, y] = toPixel(view, width, height, points[i]);
      const away = x < 40 || y < 40 || x > width - 40 || y > height - 40;
      view = { x: away ? points[i][0] : view.x, y: away ? points[i][1] : view.y, scale: view.scale };
    }
    panel.scrollIntoView({ block: "start" }); // its name first, however long it is and wherever the list was
    draw();
  }

  // ----- which pictures

  function filter() {
    const threshold = Number(find("least").value);
    find("value").textContent = threshold.toFixed(2);
    shown = chosenFew(places, threshold, find("search").value);
    const right = shown.reduce((sum, i) => sum + places[i].p, 0);
    find("count").textContent = `${shown.length} of ${places.length} places shown`
      + (shown.length ? `; about ${Math.round(right)} of these are expected to be right.` : ".");
    const buttons = shown.slice(0, LISTED).map((i) => {
      const button = make("button");
      button.type = "button";
      button.dataset.place = String(i);
      button.setAttribute("aria-current", String(i === chosen));
      const dot = make("span", undefined, "dot");
      dot.style.background = colourAt(scale, places[i].p);
      button.append(dot, make("span", places[i].name, "name"), make("span", probabilityText(places[i].p)));
      const item = make("li");
      item.append(button);
      return item;
    });
    find("list").replaceChildren(...buttons);
    find("more").textContent = shown.length > LISTED ? `And ${shown.length - LISTED} more: search, or choose on the map.` : "";
    draw();
  }

  find("list").addEventListener("click", (event) => {
    const button = event.target.closest("button");
    if (button) choose(Number(button.dataset.place), true);
  });
  find("least").addEventListener("input", filter);
  find("search").addEventListener("input", filter);
  find("bar").style.background = `linear-gradient(to right, ${scale.join(", ")})`;
  new ResizeObserver(resize).observe(canvas);
  resize();
  filter();
  document.documentElement.dataset.ready = String(Math.round(performance.now())); // milliseconds, for tests
}

if (typeof document !== "undefined") start();
else module.exports = {
  project, toPixel, toPoint, fitted, zoomed, metresAPixel, roundLength, colourAt, chosenFew, circleSize, probabilityText, radiusText,
};
