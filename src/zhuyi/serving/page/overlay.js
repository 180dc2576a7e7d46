/** A picture as the model read it, and over it how much each patch was looked at. */

import { field, make, percent } from "zhuyi/elements.js";
import { say } from "zhuyi/words.js";

const SIDE = 320;
const OPACITY = 0.65;
// From never looked at to most looked at: dark to bright, told apart without colours too.
const RAMP = [[0, 0, 4], [87, 16, 110], [188, 55, 84], [249, 142, 9], [252, 255, 164]];

/**
 * The picture with its choices; `show({grid, picture, layers, rollout})` draws another one.
 *
 * layers: of each layer, of each head, a weight for each patch of the grid's rows and columns; rollout: one for each.
 */
export function overlayView() {
  const canvas = make("canvas", { width: SIDE, height: SIDE, role: "img", class: "overlay" });
  const told = make("p", { class: "hint" });
  const layer = make("select", { onchange: () => { fillHeads(); draw(); } });
  const head = make("select", { onchange: () => draw() });
  const headField = field("head", head);
  const element = make("div", { class: "overlay-view card", hidden: true }, canvas,
    make("div", { class: "row" }, field("layer", layer), headField), told);
  const image = new Image();
  image.addEventListener("load", () => draw());
  let data = null;

  function fillHeads() {
    const heads = data.layers[Number(layer.value)];
    headField.hidden = !heads;
    if (heads && head.options.length !== heads.length + 1) {
      head.replaceChildren(make("option", { value: -1, text: "mean" }), ...heads.map((_, i) => make("option", { value: i }, String(i + 1))));
    }
  }
  function weights() {
    const heads = data.layers[Number(layer.value)];
    if (!heads) return data.rollout;
    if (head.value !== "-1") return heads[Number(head.value)];
    return heads[0].map((_, patch) => heads.reduce((sum, each) => sum + each[patch], 0) / heads.length);
  }
  function draw() {
    const brush = canvas.getContext("2d");
    const [rows, columns] = data.grid;
    const shown = weights();
    const top = Math.max(...shown) || 1;
    brush.imageSmoothingEnabled = false;
    brush.clearRect(0, 0, SIDE, SIDE);
    brush.drawImage(image, 0, 0, SIDE, SIDE);
    brush.globalAlpha = OPACITY;
    shown.forEach((weight, patch) => {
      const [row, column] = [Math.floor(patch / columns), patch % columns];
      const [left, up] = [Math.round(column * SIDE / columns), Math.round(row * SIDE / rows)];
      brush.fillStyle = colour(weight / top);
      brush.fillRect(left, up, Math.round((column + 1) * SIDE / columns) - left, Math.round((row + 1) * SIDE / rows) - up);
    });
    brush.globalAlpha = 1;
    const most = shown.indexOf(Math.max(...shown));
    say(told, ["overlay-told", Math.floor(most / columns) + 1, most % columns + 1, percent(shown[most]), rows, columns]);
    say(canvas, ["overlay-told", Math.floor(most / columns) + 1, most % columns + 1, percent(shown[most]), rows, columns], "label");
  }
  return {
    element,
    clear: () => { element.hidden = true; },
    show: (overlay) => {
      const isOther = data?.layers.length !== overlay.layers.length;
      data = overlay;
      element.hidden = false;
      if (isOther) {
        layer.replaceChildren(...overlay.layers.map((_, i) => make("option", { value: i }, String(i + 1))),
          make("option", { value: "all", text: "rollout" }));
        layer.value = overlay.layers.length - 1;
      }
      fillHeads();
      image.src = overlay.picture;
    },
  };
}

function colour(share) {
  const place = share * (RAMP.length - 1);
  const i = Math.min(Math.floor(place), RAMP.length - 2);
  return `rgb(${RAMP[i].map((from, k) => Math.round(from + (RAMP[i + 1][k] - from) * (place - i))).join(" ")})`;
}
