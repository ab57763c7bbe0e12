"use strict";
// Tables that sort: by the figures behind the cells, those without one last; words by the alphabet.
for (const button of document.querySelectorAll("button[data-sort]")) {
  button.addEventListener("click", () => {
    const heading = button.parentElement;
    const table = heading.closest("table");
    const column = [...heading.parentElement.children].indexOf(heading);
    const now = heading.getAttribute("aria-sort");
    const first = ["text", "up"].includes(button.dataset.sort) ? "ascending" : "descending";
    const direction = now === null ? first : now === "ascending" ? "descending" : "ascending";
    for (const other of heading.parentElement.children) other.removeAttribute("aria-sort");
    heading.setAttribute("aria-sort", direction);
    const sign = direction === "ascending" ? 1 : -1;
    const body = table.tBodies[0];
    const compare = (a, b) => {
      const [left, right] = [a.children[column], b.children[column]];
      if (left.dataset.value === undefined) return sign * left.textContent.localeCompare(right.textContent);
      const [x, y] = [parseFloat(left.dataset.value), parseFloat(right.dataset.value)];
      if (Number.isNaN(x) || Number.isNaN(y)) return Number.isNaN(x) - Number.isNaN(y);
      return sign * (x - y);
    };
    for (const row of [...body.rows].sort(compare)) body.append(row);
    document.getElementById("sorted").textContent = `sorted by ${button.textContent}, ${direction}`;
  });
}
