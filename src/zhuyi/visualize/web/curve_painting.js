// How curves are painted on a canvas: their colours, lines and markers, the axes around them.

const COLOURS = 6;  // --series-1 to --series-6 of style.css
const DASHES = [[], [6, 4]];
const MORE_DASHES = [[2, 3], [10, 3, 2, 3]];  // once the colours begin anew
const MARKERS = ["circle", "square", "triangle", "diamond"];
const FONT_SIZE = 12;

/** How a series looks: `number` counts looks from 0, and those of one number are told apart by `dashed`. */
export function seriesLook(number, dashed) {
  const dash = (number < COLOURS ? DASHES : MORE_DASHES)[Number(dashed)];
  return { colour: `--series-${(number % COLOURS) + 1}`, dash, marker: MARKERS[number % MARKERS.length] };
}

/** Fit a canvas to the layout, sharp on dense screens, and wipe it; returns its context and the page's colours. */
function wiped(canvas, layout) {
  const dense = devicePixelRatio || 1;
  const width = layout.left + layout.width + 12;
  if (canvas.width !== Math.round(width * dense) || canvas.height !== Math.round(layout.height * dense)) {
    canvas.width = Math.round(width * dense);
    canvas.height = Math.round(layout.height * dense);
    canvas.style.width = `${width}px`;
    canvas.style.height = `${layout.height}px`;
  }
  const context = canvas.getContext("2d");
  context.setTransform(dense, 0, 0, dense, 0, 0);
  context.clearRect(0, 0, width, layout.height);
  const style = getComputedStyle(canvas);
  return {
    context,
    font: `${FONT_SIZE}px ${style.fontFamily}`,
    ink: style.color,
    faint: style.getPropertyValue("--faint"),
    line: style.getPropertyValue("--line"),
    colour: (name) => style.getPropertyValue(name),
  };
}

/** All curves, or the words `empty` where there is none. */
export function paint(canvas, layout, given, empty) {
  const look = wiped(canvas, layout);
  const { context } = look;
  context.font = look.font;
  if (!layout.xs.length) {
    context.fillStyle = look.faint;
    context.textAlign = "center";
    context.fillText(empty, layout.left + layout.width / 2, layout.height / 2);
    return;
  }
  paintAxes(look, layout, given);
  for (const each of layout.series) {
    context.strokeStyle = context.fillStyle = look.colour(each.colour);
    context.lineWidth = 1.8;
    context.lineJoin = "round";
    context.setLineDash(each.dash);
    paintLine(context, each.points, layout);
    context.setLineDash([]);
    if (each.points.length <= layout.width / 14) {
      for (const [x, y] of each.points) if (!Number.isNaN(y)) paintMarker(context, each.marker, layout.across(x), layout.up(y), 2.8);
    }
  }
}

function paintAxes({ context, faint, line, ink }, layout, given) {
  const { left, top, width, inner } = layout;
  context.lineWidth = 1;
  context.strokeStyle = line;
  context.fillStyle = faint;
  context.textBaseline = "middle";
  context.textAlign = "right";
  for (const [number, text] of layout.y.ticks) {
    const y = Math.round(layout.up(number)) + 0.5;
    context.beginPath();
    context.moveTo(left, y);
    context.lineTo(left + width, y);
    context.stroke();
    context.fillText(text, left - 6, y, left - 8);
  }
  context.textBaseline = "alphabetic";
  context.textAlign = "center";
  for (const [number, text] of layout.x.ticks) {
    const x = Math.round(layout.across(number)) + 0.5;
    context.beginPath();
    context.moveTo(x, top + inner);
    context.lineTo(x, top + inner + 4);
    context.stroke();
    const half = context.measureText(text).width / 2;
    context.fillText(text, Math.max(half + 1, Math.min(x, left + width + 10 - half)), top + inner + 17);
  }
  context.strokeStyle = faint;
  context.strokeRect(left + 0.5, top + inner + 0.5, width, 0);
  context.fillStyle = ink;
  if (given.xLabel) context.fillText(given.xLabel, left + width / 2, top + inner + 32, width);
  context.textAlign = "left";
  if (given.yLabel) context.fillText(given.yLabel, 2, 12, left + width);
  for (const { x, name } of given.marks ?? []) paintMark(context, layout, x, name, faint);
}

function paintMark(context, layout, x, name, colour) {
  const share = layout.x.place(x);
  if (!(share >= 0 && share <= 1)) return;
  const here = layout.across(x);
  context.save();
  context.strokeStyle = context.fillStyle = colour;
  context.setLineDash([2, 2]);
  context.beginPath();
  context.moveTo(here, layout.top);
  context.lineTo(here, layout.top + layout.inner);
  context.stroke();
  context.textAlign = share > 0.7 ? "right" : "left";
  if (name) context.fillText(name, here + (share > 0.7 ? -4 : 4), layout.top + 11);
  context.restore();
}

/** One line; of more points than pixels, the first, lowest, highest and last of each column of pixels. */
function paintLine(context, points, layout) {
  const dense = points.length > 2 * layout.width;
  context.beginPath();
  let open = false, column = NaN, low = 0, high = 0, last = 0;
  const flush = () => {
    if (Number.isNaN(column)) return;
    for (const y of [low, high, last]) context.lineTo(column, y);
    column = NaN;
  };
  for (const [number, value] of points) {
    if (Number.isNaN(value)) {
      flush();
      open = false;
      continue;
    }
    const x = layout.across(number), y = layout.up(value);
    if (!open) context.moveTo(x, y);
    else if (!dense) context.lineTo(x, y);
    open = true;
    if (!dense) continue;
    if (Math.round(x) !== column) {
      flush();
      [column, low, high] = [Math.round(x), y, y];
      context.lineTo(column, y);
    }
    [low, high, last] = [Math.min(low, y), Math.max(high, y), y];
  }
  flush();
  context.stroke();
}

const CORNERS = {
  square: [[-0.9, -0.9], [0.9, -0.9], [0.9, 0.9], [-0.9, 0.9]],
  triangle: [[0, -1.2], [1.15, 0.9], [-1.15, 0.9]],
  diamond: [[0, -1.3], [1.3, 0], [0, 1.3], [-1.3, 0]],
};

/** A marker about (x, y) as a path's text. */
export function markerPath(kind, x, y, size) {
  if (kind === "circle") return `M${x - size} ${y}a${size} ${size} 0 1 0 ${2 * size} 0a${size} ${size} 0 1 0 ${-2 * size} 0Z`;
  return `M${CORNERS[kind].map(([right, down]) => `${x + right * size} ${y + down * size}`).join("L")}Z`;
}

function paintMarker(context, kind, x, y, size) {
  context.fill(new Path2D(markerPath(kind, x, y, size)));
}

/** The place that is pointed at: an upright line, and a marker on each curve. */
export function paintPointed(canvas, layout, at) {
  const { context, colour, faint } = wiped(canvas, layout);
  if (!at) return;
  const x = Math.round(layout.across(at.x)) + 0.5;
  context.strokeStyle = faint;
  context.beginPath();
  context.moveTo(x, layout.top);
  context.lineTo(x, layout.top + layout.inner);
  context.stroke();
  for (const { series, x: own, y } of at.found) {
    context.fillStyle = colour(series.colour);
    paintMarker(context, series.marker, layout.across(own), layout.up(y), 4.5);
  }
}
