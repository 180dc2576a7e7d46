// What stands in the place of a source's words: the wave of a sound, frame by frame, or the patches of a picture.
// Each has what a strip of tokens has: show, mark, text, count, name, focus; `on` has point(index or null), keep(index).
import { t } from "zhuyi/attention_texts.js";
import { veil } from "zhuyi/heat_map.js";

const WAVE_HEIGHT = 96;
const variable = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

function canvasOf(element, width, height) {
  const dense = devicePixelRatio || 1;
  element.width = Math.round(width * dense);
  element.height = Math.round(height * dense);
  const context = element.getContext("2d");
  context.setTransform(dense, 0, 0, dense, 0, 0);
  return context;
}

// A drawing that can be pointed into and walked through by the arrow keys: `steps` are what each adds to the index.
function pointable(canvas, on, indexAt, count, steps) {
  let here = 0;
  canvas.tabIndex = 0;
  canvas.addEventListener("pointermove", (event) => on.point(indexAt(event)));
  canvas.addEventListener("pointerleave", () => on.point(null));
  canvas.addEventListener("click", (event) => { const index = indexAt(event); if (index !== null) on.keep(index); });
  canvas.addEventListener("blur", () => on.point(null));
  canvas.addEventListener("keydown", (event) => {
    const step = steps[event.key];
    if (step !== undefined) {
      here = Math.max(0, Math.min(count - 1, here + step));
      on.point(here);
    } else if (event.key === "Enter" || event.key === " ") on.keep(here);
    else return;
    event.preventDefault();
  });
}

export function soundStrip({ seconds, frameSeconds, wave }, frames, on) {
  const element = document.createElement("div");
  element.className = "wave";
  const canvas = element.appendChild(document.createElement("canvas"));
  canvas.setAttribute("role", "img");
  let marked = {};
  const across = (index) => (index * frameSeconds / seconds) * canvas.clientWidth;
  const indexAt = (event) => Math.max(0, Math.min(frames - 1, Math.floor((event.offsetX / canvas.clientWidth) * seconds / frameSeconds)));
  pointable(canvas, on, indexAt, frames, { ArrowRight: 1, ArrowLeft: -1, PageUp: 25, PageDown: -25 });

  function draw() {
    const width = element.clientWidth;
    if (!width) return;
    canvas.style.width = `${width}px`;
    canvas.style.height = `${WAVE_HEIGHT}px`;
    const context = canvasOf(canvas, width, WAVE_HEIGHT);
    const { shares, chosen = [] } = marked;
    if (shares) {
      const top = shares.reduce((a, b) => Math.max(a, b), 1e-6);
      context.fillStyle = variable("--accent");
      shares.forEach((share, index) => {
        context.globalAlpha = 0.75 * share / top;
        context.fillRect(across(index), 0, across(index + 1) - across(index) + 0.5, WAVE_HEIGHT);
      });
      context.globalAlpha = 1;
    }
    context.fillStyle = variable("--ink");
    const step = width / wave.length;
    wave.forEach(([low, high], i) => {
      const [top, bottom] = [high, low].map((edge) => WAVE_HEIGHT / 2 * (1 - edge / 110));
      context.fillRect(i * step, top, Math.max(step, 0.8), Math.max(bottom - top, 0.8));
    });
    context.strokeStyle = variable("--focus");
    context.lineWidth = 2;
    for (const index of chosen) context.strokeRect(across(index), 1, Math.max(2, across(index + 1) - across(index)), WAVE_HEIGHT - 2);
  }

  const observer = new ResizeObserver(draw);
  observer.observe(element);
  return {
    element,
    mark(next) { marked = next; draw(); },
    text: (index) => t("seconds", (index * frameSeconds).toFixed(2)),
    count: () => frames,
    focus: () => canvas.focus(),
    name(text) { canvas.setAttribute("aria-label", text); },
    destroy: () => observer.disconnect(),
  };
}

export function pictureStrip({ address, rows, columns, prefix, answer }, on) {
  const element = document.createElement("div");
  element.className = "picture";
  const signs = Array.from({ length: prefix }, (_, index) => {
    const sign = element.appendChild(document.createElement("button"));
    sign.type = "button";
    sign.className = "token";
    sign.addEventListener("pointerenter", () => on.point(index));
    sign.addEventListener("pointerleave", () => on.point(null));
    sign.addEventListener("focus", () => sign.matches(":focus-visible") && on.point(index));
    sign.addEventListener("blur", () => on.point(null));
    sign.addEventListener("click", () => on.keep(index));
    return sign;
  });
  const frame = element.appendChild(document.createElement("div"));
  frame.className = "frame";
  const image = frame.appendChild(document.createElement("img"));
  image.src = address;
  image.alt = answer.label;
  const canvas = frame.appendChild(document.createElement("canvas"));
  canvas.setAttribute("role", "img");
  const inner = {
    point: (index) => on.point(index === null ? null : index + prefix),
    keep: (index) => on.keep(index + prefix),
  };
  const indexAt = ({ offsetX, offsetY }) => {
    const [row, column] = [Math.floor(offsetY / canvas.clientHeight * rows), Math.floor(offsetX / canvas.clientWidth * columns)];
    return row >= 0 && row < rows && column >= 0 && column < columns ? row * columns + column : null;
  };
  pointable(canvas, inner, indexAt, rows * columns, { ArrowRight: 1, ArrowLeft: -1, ArrowDown: columns, ArrowUp: -columns });
  let marked = {};

  function draw() {
    const [width, height] = [frame.clientWidth, frame.clientHeight];
    if (!width || !height) return;
    const context = canvasOf(canvas, width, height);
    const [wide, tall] = [width / columns, height / rows];
    const { shares, chosen = [], kept } = marked;
    const top = shares?.subarray(prefix).reduce((a, b) => Math.max(a, b), 1e-6);
    for (let patch = 0; shares && patch < rows * columns; patch++) {
      // The most looked-at patch is brightest, whatever its share: where, not how much, is what is to be seen.
      context.fillStyle = veil(shares[patch + prefix] / top, 0.72);
      const [column, row] = [patch % columns, Math.floor(patch / columns)];
      // From whole pixel to whole pixel: no seam shows where two of them meet.
      const [x, y] = [Math.round(column * wide), Math.round(row * tall)];
      context.fillRect(x, y, Math.round((column + 1) * wide) - x, Math.round((row + 1) * tall) - y);
    }
    context.strokeStyle = variable("--focus");
    context.lineWidth = 2;
    for (const index of chosen) {
      const patch = index - prefix;
      if (patch >= 0) context.strokeRect((patch % columns) * wide + 1, Math.floor(patch / columns) * tall + 1, wide - 2, tall - 2);
    }
    signs.forEach((sign, index) => {
      sign.textContent = t("class");
      sign.classList.toggle("chosen", chosen.includes(index));
      sign.setAttribute("aria-pressed", String(kept === index));
    });
  }

  const observer = new ResizeObserver(draw);
  observer.observe(frame);
  return {
    element,
    mark(next) { marked = next; draw(); },
    text: (index) => (index < prefix ? t("class") : t("patch", Math.floor((index - prefix) / columns) + 1, ((index - prefix) % columns) + 1)),
    count: () => prefix + rows * columns,
    focus: () => canvas.focus(),
    name(text) { canvas.setAttribute("aria-label", `${text}${t("colon")}${answer.label}`); },
    destroy: () => observer.disconnect(),
  };
}
