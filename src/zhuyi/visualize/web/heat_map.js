// A matrix of weights as a picture: painted once, a pixel a weight; what is pointed at are two frames over it.
import { theme } from "zhuyi/language.js";
import { isChinese, readable } from "zhuyi/token_strip.js";

const RAMPS = {
  light: [[247, 250, 253], [107, 167, 220], [8, 48, 107]],
  dark: [[27, 33, 42], [44, 112, 180], [214, 236, 255]],
};
const CELL = { widest: 44, narrowest: 2, labelled: 11 };
const LONGEST_LABEL = 110;

// A colour of the ramp for each of 256 strengths.
function shades() {
  const ramp = RAMPS[theme.current()];
  return Array.from({ length: 256 }, (_, i) => {
    const [from, to, part] = i < 128 ? [ramp[0], ramp[1], i / 127.5] : [ramp[1], ramp[2], i / 127.5 - 1];
    return from.map((low, channel) => Math.round(low + (to[channel] - low) * part));
  });
}

// A dark veil over what was not looked at, none over what was most.
export const veil = (share, opacity) => `rgb(8 12 24 / ${(opacity * (1 - share)).toFixed(3)})`;

// A canvas of one pixel a weight.
export function paintWeights({ weights, rows, columns, top }) {
  const canvas = document.createElement("canvas");
  canvas.width = columns;
  canvas.height = rows;
  const context = canvas.getContext("2d");
  const pixels = context.createImageData(columns, rows);
  const words = new Uint32Array(pixels.data.buffer);
  const colours = Uint32Array.from(shades(), ([r, g, b]) => 0xff000000 | (b << 16) | (g << 8) | r);
  for (let i = 0; i < words.length; i++) words[i] = colours[Math.min(255, Math.round((weights[i] / top) * 255))];
  context.putImageData(pixels, 0, 0);
  return canvas;
}

export function paintScale(canvas) {
  canvas.width = 256;
  canvas.height = 1;
  const context = canvas.getContext("2d");
  shades().forEach(([r, g, b], i) => {
    context.fillStyle = `rgb(${r} ${g} ${b})`;
    context.fillRect(i, 0, 1, 1);
  });
}

const variable = (name) => getComputedStyle(document.documentElement).getPropertyValue(name);
const labelFont = () => `13px ${getComputedStyle(document.body).fontFamily}`;

// `on` has point({row, column} or null, event) and keep({row, column}); a row or column outside is undefined.
export function heatMap(on) {
  const scroll = document.createElement("div");
  scroll.className = "scroll";
  const sheet = scroll.appendChild(document.createElement("div"));
  sheet.className = "sheet";
  const canvas = sheet.appendChild(document.createElement("canvas"));
  canvas.setAttribute("role", "img");
  const marks = ["row", "column"].map(() => {
    const mark = sheet.appendChild(document.createElement("div"));
    mark.className = "mark";
    mark.hidden = true;
    return mark;
  });
  let shown = null;   // {map, picture, rows, columns}: labels are null where there are none
  let layout = null;  // {cell, tall, left, top, labels}
  let drawnWidth = 0;

  function arrange() {
    const context = canvas.getContext("2d");
    const { map, rows, columns } = shown;
    const room = scroll.clientWidth;
    context.font = labelFont();
    const longest = (tokens, size) => tokens.reduce((most, token) => Math.max(most, Math.min(LONGEST_LABEL, size(token) + 10)), 0);
    const wide = (token) => context.measureText(readable(token)).width;
    const tall = (token) => (isChinese(readable(token)) ? 14 * readable(token).length : wide(token));
    const left = rows ? longest(rows, wide) : 0;
    const above = columns ? longest(columns, tall) : 0;
    const fitting = (room - left - 3) / map.columns;
    const labels = Boolean(rows || columns) && fitting >= (columns ? CELL.labelled : 0);
    const cell = Math.max(columns ? CELL.narrowest : 0.1, Math.min(CELL.widest, labels ? fitting : (room - 3) / map.columns));
    const step = cell >= 3 ? Math.floor(cell) : cell;
    layout = { cell: step, tall: columns || !rows ? step : 18, left: labels ? left : 1, top: labels ? above + 1 : 1, labels };
    resize(layout.left + layout.cell * map.columns + 1, layout.top + layout.tall * map.rows + 1);
    drawnWidth = room;
  }

  function resize(width, height) {
    const dense = Math.min(devicePixelRatio || 1, 8000 / Math.max(width, height));
    canvas.width = Math.round(width * dense);
    canvas.height = Math.round(height * dense);
    canvas.style.width = `${width}px`;
    canvas.style.height = `${height}px`;
    canvas.getContext("2d").setTransform(dense, 0, 0, dense, 0, 0);
  }

  function draw() {
    if (!shown || !scroll.clientWidth) return;  // not to be seen
    arrange();
    const context = canvas.getContext("2d");
    const { map, picture, rows, columns } = shown;
    const { cell, tall, left, top, labels } = layout;
    context.imageSmoothingEnabled = cell < 1;
    context.drawImage(picture, left, top, cell * map.columns, tall * map.rows);
    context.strokeStyle = variable("--line");
    context.strokeRect(left - 0.5, top - 0.5, cell * map.columns + 1, tall * map.rows + 1);
    if (!labels) return;
    context.font = labelFont();
    context.fillStyle = variable("--ink");
    context.textBaseline = "middle";
    context.textAlign = "right";
    rows?.forEach((token, row) => context.fillText(readable(token), left - 5, top + (row + 0.5) * tall, left - 6));
    columns?.forEach((token, column) => drawColumnLabel(context, readable(token), left + (column + 0.5) * cell, top - 5));
  }

  function drawColumnLabel(context, label, x, y) {
    if (isChinese(label) || label.length === 1) {  // full-width signs stand upright, one below the other
      context.textAlign = "center";
      [...label].forEach((sign, i, all) => context.fillText(sign, x, y - 7 - 14 * (all.length - 1 - i)));
      return;
    }
    context.save();
    context.translate(x, y);
    context.rotate(-Math.PI / 2);
    context.textAlign = "left";
    context.fillText(label, 0, 0, layout.top - 6);
    context.restore();
  }

  function cellUnder(event) {
    if (!layout) return null;
    const box = canvas.getBoundingClientRect();
    const column = Math.floor((event.clientX - box.left - layout.left) / layout.cell);
    const row = Math.floor((event.clientY - box.top - layout.top) / layout.tall);
    const inside = {
      row: row >= 0 && row < shown.map.rows ? row : undefined,
      column: column >= 0 && column < shown.map.columns ? column : undefined,
    };
    return inside.row === undefined && inside.column === undefined ? null : inside;
  }

  canvas.addEventListener("pointermove", (event) => on.point(cellUnder(event), event));
  canvas.addEventListener("pointerleave", (event) => on.point(null, event));
  canvas.addEventListener("click", (event) => { const cell = cellUnder(event); if (cell) on.keep(cell); });
  const observer = new ResizeObserver(() => { if (shown && scroll.clientWidth !== drawnWidth) draw(); });
  observer.observe(scroll);

  function frame(mark, x, y, width, height) {
    mark.hidden = false;
    mark.style.transform = `translate(${x}px, ${y}px)`;
    mark.style.width = `${width}px`;
    mark.style.height = `${height}px`;
  }

  return {
    element: scroll,
    show(map, rows, columns) {
      shown = { map, rows, columns, picture: paintWeights(map) };
      draw();
      return shown.picture;
    },
    redraw() {
      if (!shown) return;
      shown.picture = paintWeights(shown.map);
      draw();
    },
    mark(row, column) {
      for (const mark of marks) mark.hidden = true;
      if (!layout || !shown) return;
      const { cell, tall, left, top } = layout;
      if (row !== undefined) frame(marks[0], 0, top + row * tall - 1, left + cell * shown.map.columns + 1, Math.max(tall, 3) + 2);
      if (column !== undefined) frame(marks[1], left + column * cell - 1, 0, Math.max(cell, 3) + 2, top + tall * shown.map.rows + 1);
    },
    name(text) { canvas.setAttribute("aria-label", text); },
    destroy() { observer.disconnect(); },
  };
}
