const data = JSON.parse(document.getElementById("embedded").textContent);
const find = (id) => document.getElementById(id);
const count = data.ids.length;
const GRID = 10000, MARGIN = 24, REACH = 14, MATCHES = 24, COMBINATIONS = 7, PARTS = 2;
const element = (name, text, className) => {
  const made = document.createElement(name);
  if (text !== undefined) made.textContent = text;
  if (className) made.className = className;
  return made;
};
const pictureOf = (row) => (data.pictures[row] ? `data:image/webp;base64,${data.pictures[row]}` : "");
const number = (value) => value.toLocaleString("en");

// What is said of an image.
const labelsOf = (row) => {
  const values = data.values.map((column) => column[row]);
  if (!values.length || values.every((value) => value < 0)) return values.length ? "labels not known" : "";
  return data.labels.filter((_, label) => values[label] === 1).join(" + ") || "no label";
};
const groupOf = (row) => (data.groups.length ? data.groups[data.group[row]] : "");
const worst = (row) => Math.max(-1, ...data.errors.map((column) => column[row]));
const error = (hundredths) => (hundredths < 0 ? "not known" : (hundredths / 100).toFixed(2));

// Colours that colour-blind eyes tell apart, after Okabe and Ito 2008: darker on light paper and lighter on dark, 3:1 at the least,
// and with shapes. For errors cividis (Nunez et al. 2018), without the end that the paper has.
const LIGHT = ["#0072b2", "#d55e00", "#00875f", "#b8558d", "#b37c00", "#3d94cc", "#7d7500"];
const DARK = ["#4aa3df", "#e8743b", "#26b88a", "#dd9bc0", "#e69f00", "#8fd0f5", "#d6cf3f"];
const SHAPES = ["circle", "triangle", "square", "diamond", "cross"];
const CIVIDIS = [[0, 34, 78], [66, 78, 108], [122, 123, 120], [187, 175, 113], [254, 232, 56]];
const dark = window.matchMedia("(prefers-color-scheme: dark)");
const style = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
const shade = (hundredths) => {
  const share = Math.min(1, Math.max(0, hundredths / 100));
  const at = (dark.matches ? 0.3 + 0.7 * share : 0.8 * (1 - share)) * (CIVIDIS.length - 1);
  const low = Math.min(Math.floor(at), CIVIDIS.length - 2);
  return `rgb(${CIVIDIS[low].map((part, k) => Math.round(part + (at - low) * (CIVIDIS[low + 1][k] - part))).join(",")})`;
};
const colourOf = (kind) => (dark.matches ? DARK : LIGHT)[kind.colour];
const quiet = (name) => ({ name, colour: "quiet", shape: "ring" });

// Ways to colour: each gives kinds, and of each image the number of its kind; or a shade of its own.
const named = (names, of) => ({
  kinds: names.map((name, k) => ({ name, colour: k % LIGHT.length, shape: SHAPES[k % SHAPES.length] })),
  of,
});
const ways = new Map();
const byCombination = () => {
  const counts = new Map();
  for (let row = 0; row < count; row += 1) counts.set(labelsOf(row), (counts.get(labelsOf(row)) || 0) + 1);
  const plain = ["no label", "labels not known"];
  const most = [...counts].filter(([name]) => !plain.includes(name)).sort((a, b) => b[1] - a[1]).slice(0, COMBINATIONS).map(([name]) => name);
  const way = named(most, (row) => {
    const name = labelsOf(row);
    if (plain.includes(name)) return most.length + plain.indexOf(name);
    return most.includes(name) ? most.indexOf(name) : most.length + 2;
  });
  way.kinds.push({ name: "no label", colour: "quiet", shape: "circle" }, quiet("labels not known"), { name: "other labels together", colour: "quiet", shape: "cross" });
  return way;
};
if (data.labels.length) ways.set("labels", byCombination);
data.labels.forEach((name, label) => {
  ways.set(`label: ${name}`, () => ({
    kinds: [{ name: "yes", colour: 1, shape: "triangle" }, { name: "no", colour: 0, shape: "circle" }, quiet("not known")],
    of: (row) => [2, 1, 0][data.values[label][row] + 1],
  }));
});
const shaded = (of) => () => ({ scale: true, kinds: [{ name: "known", colour: "shade", shape: "circle" }, quiet("not known")], of: (row) => (of(row) < 0 ? 1 : 0), shade: of });
if (data.errors.length) {
  ways.set("error: the largest", shaded(worst));
  data.labels.forEach((name, label) => ways.set(`error: ${name}`, shaded((row) => data.errors[label][row])));
}
if (data.groups.length) {
  ways.set("group", () => {
    const way = named(data.groups.filter((name) => name), (row) => {
      const name = data.group[row];
      if (data.groups[0] === "") return name === 0 ? data.groups.length - 1 : name - 1;
      return name;
    });
    if (data.groups[0] === "") way.kinds.push(quiet("no group"));
    way.many = way.kinds.length > LIGHT.length * SHAPES.length;
    return way;
  });
}
ways.set("split", () => named(data.splits, (row) => data.split[row]));

const state = { way: null, kind: null, alone: null, layout: "", zoom: 1, x: GRID / 2, y: GRID / 2, chosen: -1, hover: -1, found: new Set() };
const canvas = find("map");
const pen = canvas.getContext("2d");

// From the map to the canvas, in CSS pixels.
const scale = () => (Math.min(canvas.clientWidth, canvas.clientHeight) - 2 * MARGIN) / GRID * state.zoom;
const look = () => {
  const [xs, ys] = data.layouts[state.layout];
  const [by, middle, centre] = [scale(), canvas.clientWidth / 2, canvas.clientHeight / 2];
  return (row) => [middle + (xs[row] - state.x) * by, centre - (ys[row] - state.y) * by];
};
const placeOf = (row) => look()(row);

const trace = (shape, x, y, size) => {
  pen.beginPath();
  if (shape === "circle" || shape === "ring") pen.arc(x, y, size, 0, 2 * Math.PI);
  else if (shape === "square") pen.rect(x - size * 0.9, y - size * 0.9, size * 1.8, size * 1.8);
  else if (shape === "triangle") { pen.moveTo(x, y - size * 1.2); pen.lineTo(x + size * 1.1, y + size * 0.8); pen.lineTo(x - size * 1.1, y + size * 0.8); pen.closePath(); }
  else if (shape === "diamond") { pen.moveTo(x, y - size * 1.3); pen.lineTo(x + size * 1.1, y); pen.lineTo(x, y + size * 1.3); pen.lineTo(x - size * 1.1, y); pen.closePath(); }
  else { pen.moveTo(x - size, y - size); pen.lineTo(x + size, y + size); pen.moveTo(x + size, y - size); pen.lineTo(x - size, y + size); }
};
const ring = (row, size, colour, width) => {
  const [x, y] = placeOf(row);
  pen.beginPath();
  pen.arc(x, y, size, 0, 2 * Math.PI);
  pen.lineWidth = width;
  pen.strokeStyle = colour;
  pen.stroke();
};
let waiting = false;
const draw = () => {
  waiting = false;
  const ratio = window.devicePixelRatio || 1;
  const [width, height] = [canvas.clientWidth, canvas.clientHeight];
  if (canvas.width !== Math.round(width * ratio)) canvas.width = Math.round(width * ratio);
  if (canvas.height !== Math.round(height * ratio)) canvas.height = Math.round(height * ratio);
  pen.setTransform(ratio, 0, 0, ratio, 0, 0);
  pen.clearRect(0, 0, width, height);
  const [soft, ink, accent] = [style("--quiet"), style("--ink"), style("--first")];
  const size = Math.max(2.2, Math.min(6, 70 / Math.sqrt(count) + 1)) * Math.min(2, Math.sqrt(state.zoom));
  const placed = look();
  // What is quiet lies below, what is rare above.
  for (const row of state.order) {
    const kind = state.way.kinds[state.kind[row]];
    const [x, y] = placed(row);
    if (x < -9 || y < -9 || x > width + 9 || y > height + 9) continue;
    const faint = (state.alone !== null && state.kind[row] !== state.alone) || (state.found.size && !state.found.has(row));
    const colour = kind.colour === "shade" ? shade(state.way.shade(row)) : kind.colour === "quiet" ? soft : colourOf(kind);
    pen.globalAlpha = faint ? 0.12 : 0.9;
    trace(kind.shape, x, y, size);
    if (kind.shape === "ring" || kind.shape === "cross") { pen.lineWidth = kind.shape === "ring" ? 1.2 : 2; pen.strokeStyle = colour; pen.stroke(); } else { pen.fillStyle = colour; pen.fill(); }
  }
  pen.globalAlpha = 1;
  for (const row of state.found) ring(row, size + 4, ink, 1.5);
  if (state.chosen >= 0) {
    for (const row of data.nearest[state.chosen]) ring(row, size + 3, accent, 1.5);
    ring(state.chosen, size + 6, ink, 3);
  }
  if (state.hover >= 0) ring(state.hover, size + 3, ink, 2);
};
const redraw = () => {
  if (waiting) return;
  waiting = true;
  window.requestAnimationFrame(draw);
};

// Legend.
const SVG = "http://www.w3.org/2000/svg";
const symbol = (kind) => {
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("viewBox", "-8 -8 16 16");
  svg.setAttribute("aria-hidden", "true");
  const path = document.createElementNS(SVG, "path");
  path.setAttribute("d", {
    circle: "M-5 0a5 5 0 1 0 10 0a5 5 0 1 0 -10 0", ring: "M-5 0a5 5 0 1 0 10 0a5 5 0 1 0 -10 0", square: "M-5 -5h10v10h-10z",
    triangle: "M0 -6L6 5L-6 5z", diamond: "M0 -7L6 0L0 7L-6 0z", cross: "M-5 -5L5 5M5 -5L-5 5",
  }[kind.shape]);
  const colour = kind.colour === "quiet" ? "var(--quiet)" : kind.colour === "shade" ? shade(100) : colourOf(kind);
  const open = kind.shape === "ring" || kind.shape === "cross";
  path.style.fill = open ? "none" : colour;
  path.style.stroke = colour;
  path.style.strokeWidth = open ? "2" : "0";
  svg.append(path);
  return svg;
};
const showLegend = () => {
  const legend = find("legend");
  const counts = state.way.kinds.map(() => 0);
  for (let row = 0; row < count; row += 1) counts[state.kind[row]] += 1;
  const parts = [];
  if (state.way.scale) {
    const bar = element("div", undefined, "scale");
    bar.style.background = `linear-gradient(to right, ${[0, 25, 50, 75, 100].map(shade).join(", ")})`;
    const ends = element("p", undefined, "small ends");
    ends.append(element("span", "0 right"), element("span", "1 wrong"));
    parts.push(element("p", `error of ${data.model}, out-of-fold`, "small"), bar, ends);
  }
  if (state.way.many) parts.push(element("p", "colours and shapes repeat; press a group to see it alone", "small"));
  state.way.kinds.forEach((kind, k) => {
    if (!counts[k]) return;
    const button = element("button");
    button.type = "button";
    button.setAttribute("aria-pressed", String(state.alone === k));
    button.append(symbol(kind), element("span", kind.name, "name"), element("span", number(counts[k]), "count"));
    button.addEventListener("click", () => {
      state.alone = state.alone === k ? null : k;
      for (const other of legend.querySelectorAll("button")) other.setAttribute("aria-pressed", String(other === button && state.alone === k));
      redraw();
    });
    parts.push(button);
  });
  legend.replaceChildren(...parts);
};
const colourBy = (name) => {
  state.way = ways.get(name)();
  state.kind = Array.from({ length: count }, (_, row) => state.way.of(row));
  state.alone = null;
  const counts = state.way.kinds.map(() => 0);
  for (const kind of state.kind) counts[kind] += 1;
  const height = (row) => (state.way.scale ? state.way.shade(row) : state.way.kinds[state.kind[row]].colour === "quiet" ? -count : -counts[state.kind[row]]);
  state.order = Array.from({ length: count }, (_, row) => row).sort((a, b) => height(a) - height(b) || a - b);
  showLegend();
  redraw();
};

// The chosen image and its nearest ones.
const image = (row, alt) => {
  const made = element("img");
  made.src = pictureOf(row);
  made.alt = alt;
  return made;
};
const choose = (row, move = true) => {
  state.chosen = row;
  const about = element("div");
  about.append(element("h3", data.ids[row]));
  const facts = element("dl", undefined, "facts");
  const say = (name, value) => facts.append(element("dt", name), element("dd", value));
  say("split", data.splits[data.split[row]]);
  if (groupOf(row)) say("group", groupOf(row));
  if (data.labels.length) say("labels", labelsOf(row));
  if (data.errors.length && worst(row) >= 0) say("error, out-of-fold", data.labels.map((name, label) => `${name} ${error(data.errors[label][row])}`).join(", "));
  if (!pictureOf(row)) say("picture", "none in this page: see “How it was made”");
  about.append(facts);
  find("image").replaceChildren(...(pictureOf(row) ? [image(row, `picture of ${data.ids[row]}`)] : []), about);
  find("nearest").replaceChildren(...data.nearest[row].map((near, place) => {
    const card = element("li", undefined, "card");
    const button = element("button");
    button.type = "button";
    if (pictureOf(near)) button.append(image(near, ""));
    button.append(element("span", data.ids[near], "id"), element("span", `cosine ${(data.cosines[row][place] / 1000).toFixed(3)}`));
    const same = groupOf(row) && groupOf(near) ? (groupOf(row) === groupOf(near) ? "same group" : "other group") : "";
    button.append(element("span", [data.splits[data.split[near]], same, labelsOf(near)].filter(Boolean).join("; "), "small"));
    button.addEventListener("click", () => { choose(near); find("chosen").scrollIntoView({ block: "nearest" }); });
    card.append(button);
    return card;
  }));
  if (move) {
    const [x, y] = placeOf(row);
    if (x < MARGIN || y < MARGIN || x > canvas.clientWidth - MARGIN || y > canvas.clientHeight - MARGIN) {
      [state.x, state.y] = data.layouts[state.layout].map((axis) => axis[row]);
    }
  }
  redraw();
};

// Search.
const search = () => {
  const wanted = find("search").value.trim().toLowerCase();
  const found = wanted ? data.ids.map((id, row) => (id.toLowerCase().includes(wanted) ? row : -1)).filter((row) => row >= 0) : [];
  found.sort((a, b) => data.ids[a].length - data.ids[b].length || a - b);
  state.found = new Set(found);
  find("found").textContent = wanted ? `${number(found.length)} of ${number(count)} ids hold this${found.length > MATCHES ? `; the first ${MATCHES}:` : ""}` : "";
  find("matches").replaceChildren(...found.slice(0, MATCHES).map((row) => {
    const item = element("li");
    const button = element("button", data.ids[row]);
    button.type = "button";
    button.addEventListener("click", () => choose(row));
    item.append(button);
    return item;
  }));
  redraw();
  return found;
};
find("search").addEventListener("input", search);
find("controls").addEventListener("submit", (event) => {
  event.preventDefault();
  const [first] = search();
  if (first !== undefined) choose(first);
});

// Pointer.
const nearestTo = (x, y) => {
  const placed = look();
  let [best, distance] = [-1, REACH * REACH];
  for (let row = 0; row < count; row += 1) {
    if (state.alone !== null && state.kind[row] !== state.alone) continue;
    const [px, py] = placed(row);
    const away = (px - x) ** 2 + (py - y) ** 2;
    if (away < distance) [best, distance] = [row, away];
  }
  return best;
};
const tip = find("hover");
const hover = (row) => {
  if (row === state.hover) return;
  state.hover = row;
  tip.hidden = row < 0;
  if (row >= 0) {
    const [picture, id, about] = tip.children;
    picture.hidden = !pictureOf(row);
    if (pictureOf(row)) picture.src = pictureOf(row);
    id.textContent = data.ids[row];
    const wrong = worst(row) >= 0 ? `largest error ${error(worst(row))}` : "";
    about.textContent = [data.splits[data.split[row]], groupOf(row) && `group ${groupOf(row)}`, labelsOf(row), wrong].filter(Boolean).join("; ");
    const [x, y] = placeOf(row);
    tip.style.left = `${Math.max(4, Math.min(x + 16, canvas.clientWidth - tip.offsetWidth - 4))}px`;
    tip.style.top = `${y + 16 + tip.offsetHeight > canvas.clientHeight ? Math.max(4, y - 16 - tip.offsetHeight) : y + 16}px`;
  }
  redraw();
};
const at = (event) => {
  const box = canvas.getBoundingClientRect();
  return [event.clientX - box.left - canvas.clientLeft, event.clientY - box.top - canvas.clientTop];
};
let drag = null;
canvas.addEventListener("pointerdown", (event) => { drag = { x: event.clientX, y: event.clientY, moved: false }; });
canvas.addEventListener("pointermove", (event) => {
  if (drag && event.buttons && event.pointerType !== "touch") {
    const [dx, dy] = [event.clientX - drag.x, event.clientY - drag.y];
    if (drag.moved || Math.abs(dx) + Math.abs(dy) > 4) {
      state.x -= dx / scale();
      state.y += dy / scale();
      drag = { x: event.clientX, y: event.clientY, moved: true };
      hover(-1);
      redraw();
    }
    return;
  }
  hover(nearestTo(...at(event)));
});
canvas.addEventListener("pointerup", (event) => {
  const row = drag && !drag.moved ? nearestTo(...at(event)) : -1;
  drag = null;
  if (row >= 0) choose(row, false);
});
canvas.addEventListener("pointercancel", () => { drag = null; });
canvas.addEventListener("pointerleave", () => { drag = null; hover(-1); });
const zoom = (by, x = canvas.clientWidth / 2, y = canvas.clientHeight / 2) => {
  const before = scale();
  state.zoom = Math.min(60, Math.max(1, state.zoom * by));
  const after = scale();
  state.x += (x - canvas.clientWidth / 2) * (1 / before - 1 / after);
  state.y -= (y - canvas.clientHeight / 2) * (1 / before - 1 / after);
  if (state.zoom === 1) [state.x, state.y] = [GRID / 2, GRID / 2];
  hover(-1);
  redraw();
};
canvas.addEventListener("wheel", (event) => { event.preventDefault(); zoom(Math.exp(-event.deltaY / 400), ...at(event)); }, { passive: false });
const whole = () => { state.zoom = 1; zoom(1); };
find("closer").addEventListener("click", () => zoom(1.6));
find("farther").addEventListener("click", () => zoom(1 / 1.6));
find("whole").addEventListener("click", whole);

// Keyboard: the nearest image on one side, within 45 degrees.
const SIDES = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
canvas.addEventListener("keydown", (event) => {
  const side = SIDES[event.key];
  if (side) {
    const middle = [canvas.clientWidth / 2, canvas.clientHeight / 2];
    const [x, y] = state.chosen < 0 ? middle : placeOf(state.chosen);
    const placed = look();
    let [best, distance] = [-1, Infinity];
    for (let row = 0; row < count; row += 1) {
      if (row === state.chosen || (state.alone !== null && state.kind[row] !== state.alone)) continue;
      const [px, py] = placed(row);
      const ahead = (px - x) * side[0] + (py - y) * side[1];
      const aside = Math.abs((px - x) * side[1]) + Math.abs((py - y) * side[0]);
      if (ahead > 0 && ahead >= aside && ahead + PARTS * aside < distance) [best, distance] = [row, ahead + PARTS * aside];
    }
    if (best >= 0) choose(best);
  } else if (event.key === "+" || event.key === "=") zoom(1.6);
  else if (event.key === "-") zoom(1 / 1.6);
  else if (event.key === "0") whole();
  else return;
  event.preventDefault();
});

for (const name of ways.keys()) find("colour").append(element("option", name));
find("colour").addEventListener("change", (event) => colourBy([...ways.keys()][event.target.selectedIndex]));
const layOut = (name) => {
  state.layout = name;
  for (const note of document.querySelectorAll("[data-layout]")) note.hidden = note.dataset.layout !== name;
  whole();
};
find("layout").addEventListener("change", (event) => layOut(event.target.value));
state.layout = Object.keys(data.layouts)[0];
colourBy([...ways.keys()][0]);
layOut(state.layout);
new ResizeObserver(redraw).observe(canvas);
dark.addEventListener("change", () => { showLegend(); redraw(); });
