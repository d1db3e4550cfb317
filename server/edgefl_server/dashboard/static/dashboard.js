// What the pages do beside links and forms: asks for the parts that change, draws curves, sends the form of a new run.
"use strict";

const byId = (id) => document.getElementById(id);

// Nobody looks at a hidden page, and a part in which somebody fills in a field stays as it is.
document.addEventListener("htmx:beforeRequest", (event) => {
  const part = event.detail.elt;
  const busy = part.contains(document.activeElement) && document.activeElement.matches("input, select, button, summary");
  if (document.hidden || (busy && part.querySelector("details[open]"))) event.preventDefault();
});
document.addEventListener("visibilitychange", () => {
  if (!document.hidden && byId("live")) htmx.trigger("#live", "edgefl:look");
});
document.addEventListener("htmx:configRequest", (event) => {
  event.detail.headers["EdgeFL-Page"] = location.pathname;
});

// What has not changed is not put in again: a screen reader would lose its place.
const latest = new WeakMap();
document.addEventListener("htmx:beforeSwap", (event) => {
  byId("silence").hidden = true;
  const { target, xhr } = event.detail;
  if (latest.get(target) === xhr.responseText) event.detail.shouldSwap = false;
  latest.set(target, xhr.responseText);
  opened = new Set([...target.querySelectorAll("details[open][id]")].map((each) => each.id));
});
let opened = new Set();
document.addEventListener("htmx:afterSwap", (event) => {
  event.detail.target.querySelectorAll("details[id]").forEach((each) => { each.open = opened.has(each.id); });
  notice();
});
for (const name of ["htmx:sendError", "htmx:responseError", "htmx:timeout"]) {
  document.addEventListener(name, () => { byId("silence").hidden = false; });
}

// A round has ended, a version was evaluated, or the run is over: said once, and what depends on it is fetched anew.
let standing = null;
function notice() {
  const facts = document.querySelector("#live [data-run-state]");
  if (!facts) return;
  const { runState, round, version, fold, measured, say } = facts.dataset;
  const key = [runState, round, version, fold, measured].join(" ");
  if (standing !== null && standing !== key) {
    if (byId("announcement").textContent !== say) byId("announcement").textContent = say;
    htmx.trigger("#rounds", "edgefl:round");
    draw();
  }
  standing = key;
}

// Curves.
const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
const written = (value) => value == null ? "–" : Math.abs(value) >= 1e5 ? value.toExponential(2) : String(+value.toPrecision(4));
const bytes = (value) => {
  if (value == null) return "–";
  const units = ["B", "kB", "MB", "GB", "TB"];
  let power = 0;
  while (value >= 1000 && power < units.length - 1) { value /= 1000; power += 1; }
  return `${+value.toPrecision(3)} ${units[power]}`;
};
const plots = new Map();
let data = null;
let drawing = false;

async function draw() {
  const curves = byId("curves");
  if (!curves || drawing) return;
  drawing = true;
  try {
    const answer = await fetch(curves.dataset.from, { headers: { Accept: "application/json" } });
    if (answer.ok) data = (await answer.json()).charts;
  } catch { /* the next round asks again */ } finally { drawing = false; }
  if (data) show(curves);
}

function show(curves) {
  byId("no-curves").hidden = data.length > 0;
  const wanted = new Set(data.map((each) => each.title));
  for (const [title, { figure, plot }] of plots) {
    if (!wanted.has(title)) { plot.destroy(); figure.remove(); plots.delete(title); }
  }
  for (const chart of data) {
    const columns = [chart.x, ...chart.lines.map((line) => line.values)];
    const known = plots.get(chart.title);
    const labels = chart.lines.map((line) => line.label).join();
    if (known && known.labels === labels) { known.plot.setData(columns); continue; }
    if (known) known.plot.destroy();
    const figure = known ? known.figure : figureOf(curves, chart.title);
    plots.set(chart.title, { figure, labels, plot: plotOf(figure, chart, columns) });
  }
}

function figureOf(curves, title) {
  const figure = document.createElement("figure");
  figure.className = "chart";
  const caption = document.createElement("figcaption");
  caption.textContent = title;
  figure.append(caption);
  curves.append(figure);
  return figure;
}

function plotOf(figure, chart, columns) {
  const format = chart.unit === "bytes" ? bytes : written;
  const axis = { stroke: colour("--faint"), grid: { stroke: colour("--line"), width: 1 }, ticks: { stroke: colour("--line"), width: 1 } };
  const width = () => Math.max(200, figure.clientWidth - 26);
  const plot = new uPlot({
    width: width(), height: 220, cursor: { y: false }, scales: { x: { time: false } },
    axes: [
      { ...axis, incrs: [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10000] },
      { ...axis, size: 64, values: (_, ticks) => ticks.map(format) },
    ],
    series: [
      { label: "round" },
      ...chart.lines.map((line, index) => ({
        label: line.label, stroke: colour(`--curve-${index % 5}`), width: 2, spanGaps: true,
        dash: [[], [6, 4], [2, 3], [8, 3, 2, 3], [1, 4]][index % 5],
        points: { show: columns[0].length < 40, size: 5 }, value: (_, value) => format(value),
      })),
    ],
  }, columns, figure);
  plot.root.setAttribute("role", "img");
  plot.root.setAttribute("aria-label", `${chart.title} by round: ${chart.lines.map((line) => line.label).join(", ")}. The table of rounds has the figures.`);
  new ResizeObserver(() => plot.setSize({ width: width(), height: 220 })).observe(figure);
  return plot;
}

matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
  for (const { figure, plot } of plots.values()) { plot.destroy(); figure.remove(); }
  plots.clear();
  if (data && byId("curves")) show(byId("curves"));
});

// A new run: the file is the body, the filled-in fields are the query.
function offer(form) {
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    const button = form.querySelector("button");
    const sent = byId("new-run-sent");
    const refused = byId("new-run-error");
    const query = new URLSearchParams([...new FormData(form)].filter(([, value]) => value !== ""));
    const request = new XMLHttpRequest(); // which says how much was sent
    const over = (text) => {
      button.disabled = false;
      sent.hidden = true;
      refused.textContent = text;
      refused.hidden = !text;
    };
    over("");
    button.disabled = true;
    sent.hidden = false;
    request.upload.onprogress = (step) => { sent.value = step.total ? step.loaded / step.total : 0; };
    request.onerror = () => over("The server does not answer. Try again.");
    request.onload = () => {
      let answer = {};
      try { answer = JSON.parse(request.responseText); } catch { /* said below */ }
      if (request.status === 201) { location.assign(answer.page); return; }
      if (request.status === 401) { location.assign(`/sign-in?next=${encodeURIComponent(location.pathname)}`); return; }
      const error = answer.error || { message: `The server answered with ${request.status}.` };
      over([error.message, error.hint].filter(Boolean).join(" "));
    };
    request.open("POST", `/new?${query}`);
    request.setRequestHeader("X-EdgeFL-Form", form.dataset.token);
    request.setRequestHeader("Accept", "application/json");
    request.setRequestHeader("Content-Type", "application/octet-stream");
    request.send(byId("f-model").files[0]);
  });
}

if (byId("new-run")) offer(byId("new-run"));
notice();
draw();
