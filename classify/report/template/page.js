const embedded = JSON.parse(document.getElementById("embedded").textContent);
const figure = (value) => (Number.isFinite(value) ? value.toFixed(3) : "–");

// The threshold of a label: the page holds what every position of the slider finds.
for (const article of document.querySelectorAll("article.label")) {
  const { cuts, start, half, splits } = embedded.labels[Number(article.dataset.label)];
  const find = (selector) => article.querySelector(selector);
  const [slider, value, choice] = [find(".slider"), find("input.value"), find("select.split")];
  const show = () => {
    const at = Number(slider.value);
    const split = splits[choice ? Number(choice.value) : 0];
    const [tp, fp] = [split.tp[at], split.fp[at]];
    const [fn, tn] = [split.positives - tp, split.negatives - fp];
    for (const [name, count] of Object.entries({ tp, fp, fn, tn })) {
      find(`.${name} b`).textContent = count.toLocaleString("en");
    }
    const measures = {
      sensitivity: tp / (tp + fn), specificity: tn / (tn + fp), f1: (2 * tp) / (2 * tp + fp + fn),
      ppv: tp / (tp + fp), npv: tn / (tn + fn), accuracy: (tp + tn) / (tp + fp + fn + tn),
    };
    for (const [name, measure] of Object.entries(measures)) find(`dd.${name}`).textContent = figure(measure);
    slider.setAttribute("aria-valuetext", String(cuts[at]));
    find(".said").textContent = `sensitivity ${figure(measures.sensitivity)}, specificity ${figure(measures.specificity)}, F1 ${figure(measures.f1)}`;
  };
  const move = (position) => {
    slider.value = String(position);
    value.value = String(cuts[position]);
    show();
  };
  slider.addEventListener("input", () => move(Number(slider.value)));
  value.addEventListener("change", () => {
    const wanted = Math.min(1, Math.max(0, parseFloat(value.value) || 0));
    let nearest = 0;
    cuts.forEach((cut, at) => { if (Math.abs(cut - wanted) < Math.abs(cuts[nearest] - wanted)) nearest = at; });
    move(nearest);
  });
  find(".reset").addEventListener("click", () => move(start));
  find(".half").addEventListener("click", () => move(half));
  if (choice) choice.addEventListener("change", show);
  move(start);
}

// Pictures stand in the page once, however often they are shown.
for (const image of document.querySelectorAll("img[data-thumbnail]")) image.src = embedded.thumbnails[image.dataset.thumbnail];
for (const image of document.querySelectorAll("img[data-heat]")) image.src = embedded.heat[image.dataset.heat];

const showHeat = (picture, shown) => {
  const heat = picture.querySelector(".heat");
  if (!heat) return;
  heat.hidden = !shown;
  picture.setAttribute("aria-pressed", String(shown));
};
const pictures = [...document.querySelectorAll("button.picture")];
for (const picture of pictures) {
  picture.addEventListener("click", () => showHeat(picture, picture.getAttribute("aria-pressed") !== "true"));
}
const allHeat = document.getElementById("all-heat");
if (allHeat) allHeat.addEventListener("change", () => pictures.forEach((picture) => showHeat(picture, allHeat.checked)));

// The gallery's filters.
const cards = [...document.querySelectorAll(".card")];
const filters = ["label", "outcome", "split"].map((name) => [name, document.getElementById(`filter-${name}`)]).filter(([, select]) => select);
const filterCards = () => {
  for (const card of cards) card.hidden = filters.some(([name, select]) => select.value && card.dataset[name] !== select.value);
  const count = cards.filter((card) => !card.hidden).length;
  document.getElementById("shown").textContent = `${count} of ${cards.length} entries`;
};
for (const [, select] of filters) select.addEventListener("change", filterCards);
document.getElementById("filters").addEventListener("submit", (event) => event.preventDefault());
filterCards();

// What is folded away on a screen belongs on paper.
window.addEventListener("beforeprint", () => document.querySelectorAll("details").forEach((details) => { details.open = true; }));
