"use strict";
// The page of map_page.html around a map by Leaflet, which stands before this script. Data comes from two JSON elements; `pictures`, the large one, is parsed at the first choice.
// Texts reach the page through textContent alone: a file's name is never markup.

const LISTED = 100; // pictures in the list at a time

// ------------------------------------------------------------------------------------- arithmetic, without the page

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

/** The best candidates of a place, from its columns candidate_1_tile and so on. */
function candidatesOf(place) {
  const fields = ["tile", "latitude", "longitude", "score", "distance_m"];
  const best = [1, 2, 3, 4, 5].map((n) => Object.fromEntries(fields.map((field) => [field, place[`candidate_${n}_${field}`]])));
  return best.filter(({ tile }) => tile !== null);
}

/** Indices of the places with a probability of `least` or more and `text` in the name, the most probable first. */
function chosenFew(places, least, text) {
  const wanted = text.trim().toLowerCase();
  return places
    .map((place, i) => i)
    .filter((i) => places[i].probability >= least && places[i].picture.toLowerCase().includes(wanted))
    .sort((a, b) => places[b].probability - places[a].probability || a - b);
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

// --------------------------------------------------------------------------------------------------------- the page

function start() {
  const find = (id) => document.getElementById(id);
  const data = JSON.parse(find("data").textContent);
  for (const place of data.places) place.candidates = candidatesOf(place);
  const { places, scale } = data;
  const still = { animate: false };
  const map = L.map("canvas", {
    attributionControl: false, zoomControl: false, keyboard: false, preferCanvas: true, zoomSnap: 0, wheelPxPerZoomLevel: 120,
    zoomAnimation: false, fadeAnimation: false, markerZoomAnimation: false, inertia: false,
  });
  map.createPane("under").style.zIndex = 300; // below what is drawn
  const renderer = L.canvas({ padding: 0.3, tolerance: 8 });
  const loaded = () => requestAnimationFrame(() => {
    document.documentElement.dataset.painted ??= String(Math.round(performance.now()));
  });
  const bounds = L.latLngBounds(data.bounds);
  const box = L.latLngBounds(places.map((place) => [place.latitude, place.longitude])).extend(bounds);
  L.imageOverlay(data.background, bounds, { pane: "under" }).on("load error", loaded).addTo(map);
  const dots = L.layerGroup().addTo(map);
  const marks = L.layerGroup().addTo(map);
  L.control.scale({ imperial: false, maxWidth: 150, position: "bottomright" }).addTo(map);

  let chosen = -1, shown = [], pictures = null, whole = 0;

  // ----- drawing

  /** A place's circle: white within black, seen on any ground, and filled with the colour of its probability. */
  function circle(i, more, edge) {
    const at = [places[i].latitude, places[i].longitude];
    const size = circleSize(map.getSize().x * map.getSize().y, shown.length, 2 ** (map.getZoom() - whole)) + more;
    const under = L.circleMarker(at, { renderer, radius: size, color: "#000000", weight: edge + 1.5, fill: false, interactive: false });
    const own = L.circleMarker(at, {
      renderer, radius: size, color: "#ffffff", weight: edge, fillColor: colourAt(scale, places[i].probability), fillOpacity: 1,
    });
    return [under, own.on("click", () => choose(i, false))];
  }

  function draw() {
    dots.clearLayers();
    for (const i of [...shown].reverse()) circle(i, 0, 1.5).forEach((layer) => dots.addLayer(layer));
    mark();
  }

  /** What belongs to the chosen place: the other candidates by number. */
  function mark() {
    marks.clearLayers();
    if (chosen < 0) return;
    const own = places[chosen];
    const quiet = { renderer, interactive: false };
    own.candidates.forEach(({ latitude, longitude }, rank) => {
      if (rank === 0) return;
      for (const [color, weight] of [["#000000", 4], ["#ffffff", 2]]) {
        marks.addLayer(L.polyline([[own.latitude, own.longitude], [latitude, longitude]], { ...quiet, color, weight }));
      }
      const icon = L.divIcon({ className: "rank", html: String(rank + 1), iconSize: [20, 20] });
      marks.addLayer(L.marker([latitude, longitude], { icon, interactive: false, keyboard: false }));
    });
    circle(chosen, 4, 4).forEach((layer) => marks.addLayer(layer));
  }

  // ----- moving

  function all() {
    map.fitBounds(box.pad(0.04), still);
  }

  const zoom = (by) => map.setZoom(map.getZoom() + by, still);
  const move = (right, down) => map.panBy([right, down], still);

  find("canvas").addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const next = (step) => shown.length && choose(shown[(shown.indexOf(chosen) + step + shown.length) % shown.length], true);
    const keys = {
      ArrowLeft: () => move(-60, 0), ArrowRight: () => move(60, 0), ArrowUp: () => move(0, -60),
      ArrowDown: () => move(0, 60), "+": () => zoom(0.6), "=": () => zoom(0.6), "-": () => zoom(-0.6), 0: all,
      n: () => next(1), p: () => next(shown.includes(chosen) ? -1 : 0),
    };
    const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
    if (!Object.hasOwn(keys, key)) return;
    event.preventDefault();
    keys[key]();
  });

  find("closer").addEventListener("click", () => zoom(0.6));
  find("farther").addEventListener("click", () => zoom(-0.6));
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
    const image = make("img", undefined, name);
    image.alt = about;
    image.src = `data:image/webp;base64,${pictures[kind][i]}`;
    return image;
  }

  function choose(i, bring) {
    chosen = i;
    const place = places[i];
    const panel = find("chosen");
    const rows = [
      make("h2", place.picture),
      make("p", `Probability ${probabilityText(place.probability)}.`),
      make("p", `${place.latitude.toFixed(6)}, ${place.longitude.toFixed(6)}`
        + (place.heading_deg === null ? "" : `; its centre looks to ${place.heading_deg.toFixed(0)}°`)),
      ...place.notes.split("; ").filter(Boolean).map((note) => make("p", `Note: ${note}.`)),
      small("ground", i, `The picture ${place.picture}`, "ground"),
    ];
    const grid = make("div", undefined, "grid"); // the top view beside what it is to be compared with
    const above = make("div");
    above.append(small("top", i, `Top view of ${place.picture}`), make("div", "Its top view"));
    grid.append(above);
    const list = make("ol");
    place.candidates.forEach(({ tile, score, distance_m: away }, rank) => {
      const item = make("li");
      item.append(small("tile", tile, `Candidate ${rank + 1}, ${tile}`));
      item.append(make("div", `${rank + 1}. ${rank ? `${away} m away` : "taken as its place"}, score ${score.toFixed(3)}`));
      item.append(make("div", tile));
      list.append(item);
    });
    grid.append(list);
    rows.push(make("h3", "Seen from above, and its best candidates"), grid);
    rows.push(make("p", "On the map: the other candidates by number.", "hint"));
    panel.replaceChildren(...rows);
    for (const button of find("list").querySelectorAll("button")) {
      button.setAttribute("aria-current", String(Number(button.dataset.place) === i));
    }
    if (bring && !map.getBounds().pad(-0.05).contains([place.latitude, place.longitude])) map.panTo([place.latitude, place.longitude], still);
    panel.scrollIntoView({ block: "start" }); // its name first, however long it is and wherever the list was
    mark();
  }

  // ----- which pictures

  function filter() {
    const threshold = Number(find("least").value);
    find("value").textContent = threshold.toFixed(2);
    shown = chosenFew(places, threshold, find("search").value);
    const right = shown.reduce((sum, i) => sum + places[i].probability, 0);
    find("count").textContent = `${shown.length} of ${places.length} places shown`
      + (shown.length ? `; about ${Math.round(right)} of these are expected to be right.` : ".");
    const buttons = shown.slice(0, LISTED).map((i) => {
      const button = make("button");
      button.type = "button";
      button.dataset.place = String(i);
      button.setAttribute("aria-current", String(i === chosen));
      const dot = make("span", undefined, "dot");
      dot.style.background = colourAt(scale, places[i].probability);
      button.append(dot, make("span", places[i].picture, "name"), make("span", probabilityText(places[i].probability)));
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
  all();
  whole = map.getZoom();
  map.setMinZoom(whole - 2);
  map.setMaxZoom(Math.max(whole, 22)); // about 20 pixels a metre
  filter();
  map.on("zoomend resize", draw);
  start.map = map; // for tests
  document.documentElement.dataset.ready = String(Math.round(performance.now())); // milliseconds, for tests
}

if (typeof document !== "undefined") start();
else module.exports = { colourAt, chosenFew, circleSize, probabilityText };
