"use strict";
const collator = new Intl.Collator("en", { numeric: true, sensitivity: "base" });

function sortBy(header) {
  const table = header.closest("table"), body = table.tBodies[0], column = header.cellIndex;
  const descending = header.ariaSort === "ascending";
  for (const other of header.parentNode.cells) other.removeAttribute("aria-sort");
  header.setAttribute("aria-sort", descending ? "descending" : "ascending");
  const keyed = [...body.rows].map((row) => {
    const cell = row.cells[column], text = cell ? cell.textContent : "";
    return { row, number: cell && cell.dataset.v !== undefined ? Number(cell.dataset.v) : NaN, text, empty: text === "–" };
  });
  keyed.sort((a, b) => {
    if (a.empty !== b.empty) return a.empty ? 1 : -1; // what is missing stays last both ways
    const order = isNaN(a.number) || isNaN(b.number) ? collator.compare(a.text, b.text) : a.number - b.number;
    return descending ? -order : order;
  });
  for (const { row } of keyed) body.append(row);
}

function quoted(text) {
  if (/^'*[=+\-@\t\r]/.test(text) && isNaN(text)) text = `'${text}`; // a spreadsheet would run it, see sslk/files/tables.py
  return /[",\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}

function saveTable(button) {
  const table = button.closest(".table").querySelector("table");
  const lines = [...table.rows].map((row) => [...row.cells].map((cell) => quoted(cell.dataset.v ?? cell.textContent)).join(","));
  const link = document.createElement("a");
  link.href = "data:text/csv;charset=utf-8," + encodeURIComponent(lines.join("\n") + "\n");
  link.download = table.caption.textContent.replace(/[^\w-]+/g, "-").toLowerCase() + ".csv";
  link.click();
}

document.addEventListener("click", (event) => {
  const button = event.target.closest("button");
  if (!button) return;
  if (button.closest("thead th")) sortBy(button.closest("th"));
  else if (button.classList.contains("csv")) saveTable(button);
  else if (button.id === "print") window.print();
  else if (button.id === "theme") setTheme(isDark() ? "light" : "dark");
});

// The picture stands on the page once; its download takes it from there.
for (const link of document.querySelectorAll("a.picture")) link.href = link.closest("figure").querySelector("img").src;

function isDark() {
  return (document.documentElement.dataset.theme ?? (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light")) === "dark";
}

function setTheme(theme) {
  document.documentElement.dataset.theme = theme;
  document.getElementById("theme").textContent = theme === "dark" ? "Light" : "Dark";
}

const themeButton = document.getElementById("theme");
themeButton.textContent = isDark() ? "Light" : "Dark";
themeButton.hidden = document.getElementById("print").hidden = false;

let closed = [];
addEventListener("beforeprint", () => {
  closed = [...document.querySelectorAll("details:not([open])")];
  for (const part of closed) part.open = true;
});
addEventListener("afterprint", () => { for (const part of closed) part.open = false; });

if ("watch" in document.body.dataset) {
  let seen = null;
  setInterval(async () => {
    try {
      const version = await (await fetch("version")).text();
      if (seen !== null && version !== seen) location.reload();
      seen = version;
    } catch { /* the server is gone; the page stays */ }
  }, 2000);
}
