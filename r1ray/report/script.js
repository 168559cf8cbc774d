"use strict";
// One cursor over all charts: they share their x axis, so pointing at a step in one reads all of them at that step.
const charts = JSON.parse(document.getElementById("series").textContent);
const panels = [...document.querySelectorAll("figure[data-chart]")].map((figure) => ({
  figure,
  series: charts.panels[figure.dataset.chart],
  values: [...figure.querySelectorAll(".key b")],
  drawings: [...figure.querySelectorAll("svg")],
}));

function nearest(points, step) {
  let low = 0, high = points.length - 1;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (points[middle][0] < step) low = middle + 1; else high = middle;
  }
  return low > 0 && step - points[low - 1][0] <= points[low][0] - step ? points[low - 1] : points[low];
}

function place(svg, step) {
  const { left, right } = svg.dataset;
  const x = Number(left) + (right - left) * step / Math.max(charts.last, 1);
  const cursor = svg.querySelector(".cursor");
  cursor.setAttribute("x1", x);
  cursor.setAttribute("x2", x);
  cursor.style.visibility = "visible";
}

function point(step) {
  for (const { figure, series, values, drawings } of panels) {
    const read = series.map((points) => nearest(points, step));
    read.forEach(([, value], i) => { values[i].textContent = value; });
    // Evaluations are far apart: name the step that the value is of, not the one pointed at. Lines may begin late.
    const [at] = read.reduce((a, b) => Math.abs(b[0] - step) < Math.abs(a[0] - step) ? b : a);
    figure.querySelector(".at").textContent = `, step ${Math.round(at).toLocaleString("en")}`;
    drawings.forEach((svg) => place(svg, step));
  }
}

function leave() {
  for (const { figure, series, values, drawings } of panels) {
    series.forEach((points, i) => { values[i].textContent = points[points.length - 1][1]; });
    figure.querySelector(".at").textContent = "";
    drawings.forEach((svg) => { svg.querySelector(".cursor").style.visibility = "hidden"; });
  }
}

for (const { drawings } of panels) {
  for (const svg of drawings) {
    svg.addEventListener("pointermove", (event) => {
      const { left, right, width } = svg.dataset;
      const box = svg.getBoundingClientRect();
      const x = (event.clientX - box.left) / box.width * width;
      const step = Math.round((x - left) / (right - left) * charts.last);
      point(Math.min(Math.max(step, 0), charts.last));
    });
    svg.addEventListener("pointerleave", leave);
  }
}

// Copy a table. Pages opened from disk may have no clipboard of their own: then a selection is copied.
const cells = (row) => [...row.children].map((c) => c.textContent.replace(/\s+/g, " ").trim());
function rows(block) {
  const head = block.querySelector("thead tr");
  const body = [...block.querySelectorAll("table[data-copy] tbody tr")].map(cells);
  return { head: head ? cells(head) : ["figure", "value"], body };
}
const markdown = (row) => `| ${row.map((c) => c.replace(/\|/g, "\\|")).join(" | ")} |`;
const csv = (row) => row.map((c) => /[",\n]/.test(c) ? `"${c.replace(/"/g, '""')}"` : c).join(",");
const formats = {
  markdown: ({ head, body }) =>
    [markdown(head), markdown(head.map((_, i) => i ? "---:" : "---")), ...body.map(markdown)].join("\n"),
  csv: ({ head, body }) => [head, ...body].map(csv).join("\n"),
};

async function copy(text) {
  if (navigator.clipboard && window.isSecureContext) return navigator.clipboard.writeText(text);
  const area = document.createElement("textarea");
  area.value = text;
  document.body.append(area);
  area.select();
  const copied = document.execCommand("copy");
  area.remove();
  if (!copied) throw new Error("the browser refused");
}

for (const button of document.querySelectorAll("button[data-format]")) {
  const label = button.textContent;
  button.addEventListener("click", () => {
    copy(formats[button.dataset.format](rows(button.closest(".copyable"))) + "\n").then(
      () => { button.textContent = "Copied"; },
      (error) => { button.textContent = `Not copied: ${error.message}`; },
    ).finally(() => setTimeout(() => { button.textContent = label; }, 1600));
  });
}
