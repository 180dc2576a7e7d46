/** A square to draw on: by pointer, or by keys (arrows move the pen, the space bar lowers and lifts it). */

import { button, make } from "zhuyi/elements.js";
import { say } from "zhuyi/words.js";

const SIDE = 280;
const PEN = 22;
const KEY_STEP = 10;
const MOVES = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

/** The square and its buttons; `drawn(blob)` gets a PNG after each stroke, and nothing where all is wiped away. */
export function drawingPlace(drawn) {
  const canvas = make("canvas", { width: SIDE, height: SIDE, tabindex: 0, role: "application", label: "draw-here", class: "draw" });
  const cursor = make("span", { class: "pen", hidden: true });
  const colours = make("select", { onchange: () => finish() }, // what digits are mostly written in, first
    make("option", { value: "white", text: "draw-white" }), make("option", { value: "black", text: "draw-black" }));
  const brush = canvas.getContext("2d");
  const strokes = [];
  let pen = { at: [SIDE / 2, SIDE / 2], down: false };

  function paint() {
    const isWhite = colours.value === "white";
    brush.fillStyle = isWhite ? "#000" : "#fff";
    brush.fillRect(0, 0, SIDE, SIDE);
    Object.assign(brush, { strokeStyle: isWhite ? "#fff" : "#000", lineWidth: PEN, lineCap: "round", lineJoin: "round" });
    for (const points of strokes) {
      brush.beginPath();
      brush.moveTo(...points[0]);
      for (const point of points.length > 1 ? points.slice(1) : points) brush.lineTo(...point);
      brush.stroke();
    }
  }
  function finish() {
    paint();
    if (strokes.length) canvas.toBlob(drawn, "image/png");
    else drawn(null);
  }
  const placeOf = (event) => {
    const box = canvas.getBoundingClientRect();
    return [(event.clientX - box.left) * SIDE / box.width, (event.clientY - box.top) * SIDE / box.height];
  };

  canvas.addEventListener("pointerdown", (event) => {
    if (event.button) return;
    canvas.setPointerCapture(event.pointerId);
    strokes.push([placeOf(event)]);
    paint();
  });
  canvas.addEventListener("pointermove", (event) => {
    if (!canvas.hasPointerCapture(event.pointerId)) return;
    strokes.at(-1).push(placeOf(event));
    paint();
  });
  canvas.addEventListener("pointerup", finish);
  canvas.addEventListener("pointercancel", finish);
  canvas.addEventListener("keydown", (event) => {
    const move = MOVES[event.key];
    if (event.key === " ") {
      pen.down = !pen.down;
      if (pen.down) strokes.push([pen.at]);
    } else if (move) {
      pen.at = pen.at.map((x, i) => Math.min(SIDE, Math.max(0, x + move[i] * KEY_STEP)));
      if (pen.down) strokes.at(-1).push(pen.at);
    } else return;
    event.preventDefault();
    paint();
    if (event.key === " " && !pen.down) finish();
    showPen();
  });
  const showPen = () => {
    cursor.hidden = document.activeElement !== canvas || !canvas.matches(":focus-visible");
    cursor.style.translate = `${(pen.at[0] / SIDE) * canvas.clientWidth}px ${(pen.at[1] / SIDE) * canvas.clientHeight}px`;
    cursor.classList.toggle("down", pen.down);
  };
  canvas.addEventListener("focus", showPen);
  canvas.addEventListener("blur", () => {
    pen = { ...pen, down: false };
    showPen();
  });
  paint();
  const wipe = button("draw-wipe", () => {
    strokes.length = 0;
    finish();
  });
  const undo = button("draw-undo", () => {
    strokes.pop();
    finish();
  });
  say(colours, "draw-colours", "label");
  return make("div", { class: "drawing" }, make("div", { class: "sheet" }, canvas, cursor),
    make("div", { class: "row" }, wipe, undo, colours), make("p", { class: "hint", text: "draw-how" }));
}
