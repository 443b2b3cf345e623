"""The program of the report's page: tables are sorted by a button in each column's header.

Without it the page shows the same tables. A column of class ``number`` is sorted by the first number of each cell, or
by its ``data-value``; what has none comes last. One press puts the largest first, the next the smallest, the third
restores the order of the page. Cells that span several rows are repeated in each before these are moved.
"""

import base64
import hashlib

SCRIPT = """
for (const table of document.querySelectorAll(".scroll table:not(.gallery)")) {
  const heads = [...table.querySelectorAll("thead th")];
  let page;
  if (heads.length < 2 || [...table.tBodies].reduce((sum, body) => sum + body.rows.length, 0) < 2) continue;
  heads.forEach((head, column) => {
    if (!head.textContent.trim()) return;
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    const numeric = head.classList.contains("number"), orders = ["ascending", "descending"];
    if (numeric) orders.reverse();
    button.addEventListener("click", () => {
      const next = orders[orders.indexOf(head.getAttribute("aria-sort")) + 1];
      page ??= [...table.tBodies].map(body => body.innerHTML);
      heads.forEach(each => each.removeAttribute("aria-sort"));
      page.forEach((html, k) => table.tBodies[k].innerHTML = html);
      if (next) {
        head.setAttribute("aria-sort", next);
        repeat(table);
        sort([...table.tBodies], column, numeric, next === "ascending" ? 1 : -1);
      }
    });
  });
}
function repeat(table) {
  for (const row of table.querySelectorAll("tbody tr"))
    [...row.cells].forEach((cell, column) => {
      for (let below = row, left = cell.rowSpan; left > 1; left--) {
        below = below.nextElementSibling;
        const copy = cell.cloneNode(true);
        copy.rowSpan = 1;
        below.insertBefore(copy, below.cells[column] || null);
      }
      cell.rowSpan = 1;
      if (cell.scope) cell.scope = "row";
    });
}
function sort(bodies, column, numeric, sign) {
  const rows = bodies.flatMap(body => [...body.rows]).map(row => [value(row.cells[column], numeric), row]);
  rows.sort(([a], [b]) => a === b ? 0 : a === null ? 1 : b === null ? -1 :
    sign * (numeric ? a - b : a.localeCompare(b, undefined, {numeric: true})));
  bodies[0].append(...rows.map(([, row]) => row));
}
function value(cell, numeric) {
  if (!cell) return null;
  const text = (cell.dataset.value || cell.textContent).trim();
  if (!numeric) return text || null;
  const match = text.replace(/,/g, "").match(/[-+]?\\d+(\\.\\d+)?/);
  return match && parseFloat(match[0]);
}
"""


def digest() -> str:
    """By which the page's content security policy lets this script run, and no other."""
    return base64.b64encode(hashlib.sha256(SCRIPT.encode()).digest()).decode()
