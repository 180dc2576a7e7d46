// Line charts: several series over one axis, read by pointer, by keys, or as a table.

import { adoptStyle } from "zhuyi/adopted_style.js";
import { axis, extent, written, writtenTime } from "zhuyi/axes.js";
import { markerPath, paint, paintPointed, seriesLook } from "zhuyi/curve_painting.js";
import { texts } from "zhuyi/language.js";

const t = texts({
  en: {
    empty: "Nothing to draw yet.",
    chart: (y, x) => `Line chart: ${y} by ${x}.`,
    series: (name, count, first, last, low, high) => `${name}: ${count} points, from ${first} to ${last}, lowest ${low}, highest ${high}.`,
    table: "as a table",
    thinned: (shown, all) => `${shown} of ${all} rows`,
    keys: "Arrow keys move along the curves; Home and End go to their ends; Enter picks a point.",
    value: "value",
  },
  zh: {
    empty: "还没有可画的数据。",
    chart: (y, x) => `折线图：${y}随${x}的变化。`,
    series: (name, count, first, last, low, high) => `${name}：共 ${count} 个点，从 ${first} 到 ${last}，最低 ${low}，最高 ${high}。`,
    table: "以表格显示",
    thinned: (shown, all) => `${all} 行中的 ${shown} 行`,
    keys: "用方向键沿曲线移动，Home 和 End 到两端，Enter 选定一点。",
    value: "数值",
  },
});

const TABLE_ROWS = 200;

const STYLE = `
.curves { position: relative; font-size: .85rem; min-width: 0; }
.curves .plot { position: relative; border-radius: .3rem; touch-action: pan-y; cursor: crosshair; }
.curves .plot:focus-visible { outline: 2px solid var(--focus); outline-offset: 2px; }
.curves canvas { display: block; position: absolute; inset: 0; }
.curves .legend { display: flex; flex-wrap: wrap; gap: .1rem .9rem; margin: .1rem 0; }
.curves .legend button { all: unset; cursor: pointer; display: flex; align-items: center; gap: .35rem; min-height: 1.6rem; max-width: 100%; overflow-wrap: anywhere; }
.curves .legend button:focus-visible { outline: 2px solid var(--focus); outline-offset: 1px; border-radius: .2rem; }
.curves .legend button[aria-pressed=false] { opacity: .45; text-decoration: line-through; }
.curves .legend svg { flex: none; }
.curves .read { position: absolute; z-index: 1; pointer-events: none; padding: .25rem .55rem; border-radius: .35rem; background: var(--card); border: 1px solid var(--line); box-shadow: 0 1px 5px #0003; opacity: .94; max-width: min(20rem, 90%); }
.curves .read div { display: flex; gap: .4rem; align-items: center; }
.curves .read b { margin-inline-start: auto; padding-inline-start: .6rem; font-variant-numeric: tabular-nums; white-space: nowrap; }
.curves details { color: var(--faint); }
.curves summary { cursor: pointer; width: max-content; max-width: 100%; }
.curves .rows { max-height: 16rem; overflow: auto; }
.curves table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
.curves td, .curves th { text-align: end; padding: .1rem .6rem; border-bottom: 1px solid var(--line); font-weight: normal; }
.curves thead th { position: sticky; top: 0; background: var(--card); }
`;

/**
 * Draw curves into a container; `update` takes options that have changed, `destroy` takes all away again.
 *
 * options: series: [{name, points: [[x, y], ...], dashed, colour}]; a y of null is a gap; `colour` counts from 0, and series
 *          of one colour are told apart by `dashed`.
 *          xLabel, yLabel; logX, logY: logarithmic axes; times: the x are milliseconds since 1970, UTC.
 *          marks: [{x, name}], upright lines; height in pixels; empty: what to say where there is no point.
 * The container is sent a "pick" event, its detail {x}, where a point is clicked or Enter pressed.
 */
export function lineChart(container, options) {
  adoptStyle(STYLE);
  const hidden = new Set();
  const parts = build(container);
  let given = { series: [] }, series = [], at = null, layout = null, drawn = 0;

  const draw = () => {
    drawn = 0;
    layout = arrange(parts, given, series.filter((each) => !hidden.has(each.name)));
    paint(parts.curves, layout, given, given.empty ?? t("empty"));
    point(at && nearest(layout.xs, at.x));
  };
  const drawSoon = () => { drawn ||= requestAnimationFrame(draw); };

  function point(x) {
    at = x === null || x === undefined || !layout.xs.length ? null : { x, found: readings(layout.series, x) };
    paintPointed(parts.pointed, layout, at);
    tell(parts, layout, at, given);
  }

  function update(changed) {
    given = { ...given, ...changed };
    series = given.series.map(prepared);
    drawLegend(parts.legend, series, hidden, drawSoon);
    parts.summary.textContent = t("table");
    if (parts.details.open) drawTable(parts, series, given);
    drawSoon();
  }

  const pick = () => at && container.dispatchEvent(new CustomEvent("pick", { detail: { x: at.x } }));
  const under = (event) => {
    const box = parts.plot.getBoundingClientRect();
    const share = (event.clientX - box.left - layout.left) / layout.width;
    return nearest(layout.xs, layout.x.number(Math.max(0, Math.min(1, share))));
  };
  parts.plot.addEventListener("pointermove", (event) => layout && point(under(event)));
  parts.plot.addEventListener("pointerdown", (event) => layout && point(under(event)));
  parts.plot.addEventListener("pointerleave", () => layout && document.activeElement !== parts.plot && point(null));
  parts.plot.addEventListener("click", pick);
  parts.plot.addEventListener("blur", () => layout && point(null));
  parts.plot.addEventListener("focus", () => layout && parts.plot.matches(":focus-visible") && point(at?.x ?? layout.xs.at(-1)));
  parts.plot.addEventListener("keydown", (event) => {
    if (!layout?.xs.length) return;
    if (event.key === "Enter") return pick();
    const next = moved(event.key, at ? layout.xs.indexOf(at.x) : layout.xs.length - 1, layout.xs.length);
    if (next === undefined) return;
    event.preventDefault();
    point(next === null ? null : layout.xs[next]);
  });
  parts.details.addEventListener("toggle", () => parts.details.open && drawTable(parts, series, given));

  const sizes = new ResizeObserver(drawSoon);
  sizes.observe(parts.plot);
  const redraw = () => update({});
  const looks = new MutationObserver(redraw);  // another language or theme
  looks.observe(document.documentElement, { attributes: true, attributeFilter: ["lang", "data-theme"] });
  const darkness = matchMedia("(prefers-color-scheme: dark)");
  darkness.addEventListener("change", redraw);
  document.fonts.addEventListener("loadingdone", drawSoon);
  update(options);
  return {
    update,
    destroy() {
      cancelAnimationFrame(drawn);
      sizes.disconnect();
      looks.disconnect();
      darkness.removeEventListener("change", redraw);
      document.fonts.removeEventListener("loadingdone", drawSoon);
      parts.root.remove();
    },
  };
}

function build(container) {
  const add = (parent, tag, name = "") => {
    const element = parent.appendChild(document.createElement(tag));
    if (name) element.className = name;
    return element;
  };
  const root = add(container, "div", "curves");
  const plot = add(root, "div", "plot");
  plot.tabIndex = 0;
  plot.setAttribute("role", "slider");
  const [curves, pointed] = [add(plot, "canvas"), add(plot, "canvas")];
  const read = add(plot, "div", "read");
  read.hidden = true;
  const legend = add(root, "div", "legend");
  const details = add(root, "details");
  const summary = add(details, "summary");
  return { root, legend, plot, curves, pointed, read, details, summary, rows: add(details, "div", "rows") };
}

/** A series in the order of its x, with its look; what is no number is a gap. */
function prepared({ name = "", points, dashed = false, colour }, index) {
  const ordered = points.filter(([x]) => Number.isFinite(x)).map(([x, y]) => [x, Number.isFinite(y) ? y : NaN]);
  if (ordered.some(([x], i) => i && x < ordered[i - 1][0])) ordered.sort((a, b) => a[0] - b[0]);
  return { name, points: ordered, ...seriesLook(colour ?? index, dashed) };
}

/** The points that can be drawn, and apart from them those that have a value. */
function drawable(series, given) {
  const points = series.points.filter(([x, y]) => (!given.logX || x > 0) && !(given.logY && y <= 0));
  const real = points.filter(([, y]) => !Number.isNaN(y));
  return { ...series, points, real, xs: real.map(([x]) => x) };
}

function arrange(parts, given, shown) {
  const height = given.height ?? Math.round(Math.max(190, Math.min(320, parts.plot.clientWidth * 0.5)));
  parts.plot.style.height = `${height}px`;
  const [left, top, bottom, right] = [46, given.yLabel ? 22 : 8, given.xLabel ? 38 : 22, 12];
  const width = Math.max(40, parts.plot.clientWidth - left - right);
  const inner = height - top - bottom;
  const series = shown.map((each) => drawable(each, given));
  const real = series.flatMap((each) => each.real);
  const xs = [...new Set(real.map(([number]) => number))].sort((a, b) => a - b);
  const layout = { series, xs, left, top, width, inner, height };
  if (!xs.length) return layout;
  const kind = given.times ? "time" : given.logX ? "log" : "linear";
  const x = axis(xs[0], xs.at(-1), kind, Math.max(2, Math.floor(width / 80)), false);
  const y = axis(...extent(real.map(([, number]) => number)), given.logY ? "log" : "linear", Math.max(3, Math.floor(inner / 38)), true);
  return {
    ...layout, x, y,
    across: (number) => left + x.place(number) * width,
    up: (number) => top + (1 - y.place(number)) * inner,
  };
}

// ---- reading off

/** The nearest of ordered numbers; null of none. */
export function nearest(ordered, wanted) {
  if (!ordered.length) return null;
  const next = Math.min(indexOf(ordered, wanted), ordered.length - 1);
  return next && wanted - ordered[next - 1] <= ordered[next] - wanted ? ordered[next - 1] : ordered[next];
}

/** Where among ordered numbers the first stands that is at least so great. */
function indexOf(ordered, wanted) {
  let low = 0, high = ordered.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (ordered[middle] < wanted) low = middle + 1;
    else high = middle;
  }
  return low;
}

/** Each series' value at x, or at its own point nearest to it; none beyond a series' ends. */
function readings(series, x) {
  return series.flatMap((each) => {
    if (!each.xs.length || x < each.xs[0] || x > each.xs.at(-1)) return [];
    const own = nearest(each.xs, x);
    return [{ series: each, x: own, y: each.real[indexOf(each.xs, own)][1] }];
  });
}

function moved(key, here, count) {
  const stride = Math.max(1, Math.round(count / 10));
  const moves = {
    ArrowRight: here + 1, ArrowUp: here + 1, ArrowLeft: here - 1, ArrowDown: here - 1,
    PageUp: here + stride, PageDown: here - stride, Home: 0, End: count - 1,
  };
  if (key === "Escape") return null;
  return key in moves ? Math.max(0, Math.min(count - 1, moves[key])) : undefined;
}

function xText(given, x) {
  return given.times ? writtenTime(x) : written(x);
}

/** Say what is pointed at, in a box beside it and to a screen reader. */
function tell(parts, layout, at, given) {
  const { plot, read } = parts;
  const set = (name, value) => plot.setAttribute(`aria-${name}`, value);
  set("label", described(layout, given));
  set("valuemin", layout.xs[0] ?? 0);
  set("valuemax", layout.xs.at(-1) ?? 0);
  set("valuenow", at?.x ?? layout.xs.at(-1) ?? 0);
  read.hidden = !at;
  if (!at) return set("valuetext", layout.xs.length ? xText(given, layout.xs.at(-1)) : given.empty ?? t("empty"));
  const heading = `${given.xLabel ?? "x"} ${xText(given, at.x)}`;
  const values = at.found.map(({ series, x, y }) => [series, written(y) + (x === at.x ? "" : ` (${xText(given, x)})`)]);
  set("valuetext", [heading, ...values.map(([series, value]) => `${series.name} ${value}`)].join(", "));
  read.replaceChildren(heading, ...values.map(([series, value]) => {
    const row = document.createElement("div");
    const strong = document.createElement("b");
    strong.textContent = value;
    row.append(swatch(series), series.name, strong);
    return row;
  }));
  const here = layout.across(at.x);
  const room = plot.clientWidth - here - 14;
  read.style.left = `${Math.max(0, room > read.offsetWidth ? here + 12 : here - 12 - read.offsetWidth)}px`;
  read.style.top = `${layout.top}px`;
}

function described(layout, given) {
  if (!layout.xs.length) return given.empty ?? t("empty");
  const sentences = layout.series.filter((each) => each.real.length).map(({ name, real }) => {
    const values = real.map(([, y]) => y);
    return t("series", name, real.length, ...[values[0], values.at(-1), ...extent(values)].map((y) => written(y)));
  });
  return [t("chart", given.yLabel ?? t("value"), given.xLabel ?? "x"), ...sentences, t("keys")].join(" ");
}

/** A piece of a series' line, as the legend shows it. */
function swatch(series) {
  const space = "http://www.w3.org/2000/svg";
  const picture = document.createElementNS(space, "svg");
  const line = picture.appendChild(document.createElementNS(space, "line"));
  const dot = picture.appendChild(document.createElementNS(space, "path"));
  const write = (element, values) => Object.entries(values).forEach(([key, value]) => element.setAttribute(key, value));
  write(picture, { width: 26, height: 12, "aria-hidden": "true" });
  write(line, { x1: 0, y1: 6, x2: 26, y2: 6, "stroke-width": 2, "stroke-dasharray": series.dash.join(" ") });
  write(dot, { d: markerPath(series.marker, 13, 6, 3) });
  line.style.stroke = dot.style.fill = `var(${series.colour})`;
  return picture;
}

/** The series' names, each a button that hides it and brings it back; one alone needs no name. */
function drawLegend(legend, series, hidden, drawSoon) {
  const focused = [...legend.children].indexOf(document.activeElement);
  legend.replaceChildren(...(series.length > 1 ? series : []).map((each) => {
    const button = document.createElement("button");
    button.type = "button";
    button.setAttribute("aria-pressed", !hidden.has(each.name));
    button.append(swatch(each), each.name);
    button.addEventListener("click", () => {
      if (!hidden.delete(each.name)) hidden.add(each.name);
      button.setAttribute("aria-pressed", !hidden.has(each.name));
      drawSoon();
    });
    return button;
  }));
  if (focused >= 0) legend.children[focused]?.focus();
}

/** The same numbers as a table, of many rows some, evenly spread. */
function drawTable(parts, series, given) {
  const xs = [...new Set(series.flatMap(({ points }) => points.map(([x]) => x)))].sort((a, b) => a - b);
  const shown = xs.length <= TABLE_ROWS ? xs : Array.from({ length: TABLE_ROWS }, (_, i) => xs[Math.round((i * (xs.length - 1)) / (TABLE_ROWS - 1))]);
  const values = series.map(({ points }) => new Map(points));
  const table = document.createElement("table");
  const addRow = (section, kind, cells) => {
    const row = section.insertRow();
    cells.forEach((text, i) => {
      const cell = row.appendChild(document.createElement(kind === "th" || i === 0 ? "th" : "td"));
      cell.textContent = text;
      if (cell.tagName === "TH") cell.scope = kind === "th" ? "col" : "row";
    });
  };
  addRow(table.createTHead(), "th", [given.xLabel ?? "x", ...series.map(({ name }) => name || given.yLabel || t("value"))]);
  const body = table.createTBody();
  for (const x of shown) {
    addRow(body, "td", [xText(given, x), ...values.map((at) => (Number.isFinite(at.get(x)) ? written(at.get(x)) : "–"))]);
  }
  parts.rows.replaceChildren(table, ...(shown.length < xs.length ? [t("thinned", shown.length, xs.length)] : []));
}
