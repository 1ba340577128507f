// Three small plots over the whole run, drawn as SVG at the size they have.

import { el, svg, milliseconds, percent } from "/assets/dom.js";

const limit = 1200; // points kept; then every other one goes, as the service does
const box = { top: 18, right: 46, bottom: 20, left: 6, height: 150 };

const kinds = [
  {
    name: "liked",
    title: "Liked share of the images",
    note: "judged by the truth; dotted: drawn at random",
    series: [{ key: "base_rate", label: "base", quiet: true }, { key: "liked_share", label: "liked" }],
    range: () => [0, 1],
    ticks: () => [0, 0.5, 1],
    write: percent,
    now: "liked_share",
    optional: true,
  },
  {
    name: "latency",
    title: "From feedback to image",
    note: "median; p99 dotted",
    series: [{ key: "p99", label: "p99", quiet: true }, { key: "p50", label: "p50" }],
    range: (points) => [0, roundUp(usual(points, ["p50", "p99"], 100))],
    ticks: ([, high]) => [0, high / 2, high],
    write: milliseconds,
    now: "p50",
  },
  {
    name: "loss",
    title: "Loss of the prior",
    note: "marks are versions as they were announced",
    series: [{ key: "loss", label: "loss" }],
    range: (points) => [0, roundUp(usual(points, ["loss"], 0.1))],
    ticks: ([, high]) => [0, high / 2, high],
    write: (v) => v.toPrecision(2),
    now: "loss",
    versions: true,
  },
];

/** Plots keeps the points and draws at most once a frame. */
export class Plots {
  constructor(root) {
    this.points = [];
    this.panels = kinds.map((kind) => new Panel(kind));
    root.append(...this.panels.map((p) => p.node));
    new ResizeObserver(() => this.draw()).observe(root);
  }

  reset(points) {
    this.points = points;
    this.draw();
  }

  add(at, status) {
    const last = this.points.at(-1);
    if (last && at <= last.at) return;
    const latency = status.event_to_image_ms;
    this.points.push({
      at, liked_share: status.liked_share, base_rate: status.base_rate, loss: status.loss,
      p50: latency?.p50 ?? null, p99: latency?.p99 ?? null, version: status.prior_number,
    });
    if (this.points.length > limit) this.points = this.points.filter((_, i) => i % 2 === 0);
    this.draw();
  }

  draw() {
    if (this.waiting) return;
    this.waiting = requestAnimationFrame(() => {
      this.waiting = 0;
      for (const panel of this.panels) panel.draw(this.points);
    });
  }
}

class Panel {
  constructor(kind) {
    this.kind = kind;
    this.value = el("output", { class: "plot-now" }, "–");
    this.canvas = svg("svg", { class: "plot", role: "img", "aria-label": kind.title, height: box.height });
    this.node = el("figure", { class: "panel", "data-plot": kind.name },
      el("figcaption", {}, el("h2", {}, kind.title), this.value, el("p", {}, kind.note)), this.canvas);
  }

  draw(points) {
    // Only a controlled world knows what is truly liked: elsewhere its plot would stay empty for ever.
    this.node.hidden = this.kind.optional === true && points.length > 0 && !points.some((p) => this.kind.series.some((s) => p[s.key] !== null));
    const width = this.canvas.clientWidth;
    if (width === 0) return; // not shown
    const { kind } = this;
    const range = kind.range(points);
    const scale = scales(points, range, width);
    const parts = kind.ticks(range).map((v) => tick(v, scale, width, kind.write));
    if (points.length > 1) {
      parts.push(...times(points, scale, width));
      if (kind.versions) parts.push(...versions(points, scale));
      for (const s of kind.series) parts.push(line(points, s, scale));
    }
    this.canvas.setAttribute("viewBox", `0 0 ${width} ${box.height}`);
    this.canvas.replaceChildren(...parts);
    this.say(points);
  }

  say(points) {
    const at = points.findLast((p) => p[this.kind.now] !== null);
    const text = at ? this.kind.write(at[this.kind.now]) : "–";
    if (this.value.textContent === text) return;
    this.value.textContent = text;
    this.canvas.setAttribute("aria-label", `${this.kind.title}: ${text} now`);
  }
}

function scales(points, [low, high], width) {
  const from = points[0]?.at ?? 0;
  const span = Math.max((points.at(-1)?.at ?? 0) - from, 1);
  return {
    x: (at) => box.left + ((at - from) / span) * (width - box.left - box.right),
    y: (v) => box.height - box.bottom - ((Math.min(v, high) - low) / (high - low)) * (box.height - box.top - box.bottom),
  };
}

function tick(v, scale, width, write) {
  const y = scale.y(v).toFixed(1);
  return svg("g", { class: "tick" },
    svg("line", { x1: box.left, x2: width - box.right, y1: y, y2: y }),
    svg("text", { x: width - box.right + 6, y, dy: "0.32em" }, write(v)));
}

function times(points, scale, width) {
  const seconds = (points.at(-1).at - points[0].at) / 1000;
  const ago = seconds < 100 ? `${Math.round(seconds)} s ago` : `${Math.round(seconds / 60)} min ago`;
  const y = box.height - 4;
  return [
    svg("text", { class: "time", x: box.left, y }, ago),
    svg("text", { class: "time", x: width - box.right, y, "text-anchor": "end" }, "now"),
  ];
}

function versions(points, scale) {
  const marks = [];
  let free = -Infinity; // labels stand only where the one before leaves room
  for (let i = 1; i < points.length; i++) {
    if (points[i].version === points[i - 1].version || points[i].version === 0) continue;
    const x = scale.x(points[i].at);
    const mark = svg("g", { class: "version" }, svg("line", { x1: x, x2: x, y1: box.top, y2: box.height - box.bottom }));
    if (x > free) {
      mark.append(svg("text", { x, y: box.top - 6, "text-anchor": "middle" }, `v${points[i].version}`));
      free = x + 30;
    }
    marks.push(mark);
  }
  return marks;
}

function line(points, series, scale) {
  let d = "";
  let pen = "M";
  let last = null;
  for (const p of points) {
    const v = p[series.key];
    if (v === null || v === undefined) {
      pen = "M"; // a gap stays a gap
      continue;
    }
    d += `${pen}${scale.x(p.at).toFixed(1)} ${scale.y(v).toFixed(1)}`;
    pen = "L";
    last = p;
  }
  const g = svg("g", { class: series.quiet ? "series quiet" : "series" }, svg("path", { d }));
  if (last) g.append(svg("circle", { cx: scale.x(last.at).toFixed(1), cy: scale.y(last[series.key]).toFixed(1), r: 2.5 }));
  return g;
}

// usual is the largest value but for outliers, which would press everything else flat: twice the
// value that nine in ten points stay below, if that is less.
function usual(points, keys, least) {
  const values = points.flatMap((p) => keys.map((k) => p[k]).filter((v) => v !== null)).sort((a, b) => a - b);
  if (values.length === 0) return least;
  return Math.max(least, Math.min(values.at(-1), 2 * values[Math.floor(0.9 * (values.length - 1))]));
}

// roundUp gives the next of 1, 2, 4, 6, 8 times a power of ten, so that the axis rests while values move.
function roundUp(v) {
  const power = 10 ** Math.floor(Math.log10(v));
  return [1, 2, 4, 6, 8, 10].find((step) => step * power >= v * 0.999) * power;
}
