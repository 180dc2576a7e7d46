// One place's maps: a choice of layer and head, the heat map, its scale, and all heads at a glance.
import { t } from "zhuyi/attention_texts.js";
import { MEAN, ROLLOUT } from "zhuyi/attention_weights.js";
import { heatMap, paintScale, paintWeights } from "zhuyi/heat_map.js";
import { radioChoice } from "zhuyi/radio_choice.js";

const THUMB = { size: 72, gap: 4 };

// `on` has pick(), point(cell, event), keep(cell); `chosen` is {layer, head}, changed by the choices.
export function mapPanel({ place, title, weights, chosen, rows, columns }, on) {
  const element = document.createElement("section");
  element.className = "map card";
  element.dataset.place = place.place;
  const head = element.appendChild(document.createElement("div"));
  head.className = "map-head";
  const heading = head.appendChild(document.createElement("h3"));
  const wide = head.appendChild(document.createElement("button"));
  wide.type = "button";
  const choices = element.appendChild(document.createElement("form"));
  choices.className = "choices";
  const layerChoice = radioChoice((layer) => { chosen.layer = layer; pick(); });
  const headChoice = radioChoice((number) => { chosen.head = number; pick(); });
  choices.append(layerChoice.element, headChoice.element);
  const map = heatMap(on);
  element.append(map.element);
  const scale = element.appendChild(document.createElement("div"));
  scale.className = "scale";
  const [zero, ramp, top] = ["span", "canvas", "span"].map((tag) => scale.appendChild(document.createElement(tag)));
  zero.textContent = "0";
  ramp.setAttribute("aria-hidden", "true");
  const overview = element.appendChild(document.createElement("details"));
  const summary = overview.appendChild(document.createElement("summary"));
  const sheet = overview.appendChild(document.createElement("div"));
  sheet.className = "thumbs";
  const thumbs = sheet.appendChild(document.createElement("canvas"));
  thumbs.setAttribute("aria-hidden", "true");  // the choices above are the same for a keyboard
  const hint = overview.appendChild(document.createElement("p"));
  hint.className = "hint";
  let current = null;

  const count = (n) => Array.from({ length: n }, (_, i) => [i, String(i + 1)]);

  function drawChoices() {
    const layers = place.rollout ? [[ROLLOUT, t("rollout")]] : [];
    layerChoice.set(t("layer"), [...count(place.layers), ...layers], chosen.layer);
    const mean = place.heads > 1 ? [[MEAN, t("mean")]] : [];
    headChoice.set(t("head"), [...mean, ...count(place.heads)], chosen.head, { disabled: chosen.layer === ROLLOUT });
  }

  function pick() {
    drawChoices();
    drawMap();
    on.pick();
  }

  function drawMap() {
    current = weights.map(place.place, chosen.layer, chosen.head);
    map.show(current, rows, columns);
    top.textContent = current.top.toFixed(2);
    paintScale(ramp);
  }

  // Each layer's and head's map small; painted when somebody looks, since a long text has many weights.
  function drawOverview() {
    if (!overview.open) return;
    const { size, gap } = THUMB;
    const dense = devicePixelRatio || 1;
    const [width, height] = [place.heads * (size + gap), place.layers * (size + gap)];
    Object.assign(thumbs, { width: width * dense, height: height * dense });
    Object.assign(thumbs.style, { width: `${width}px`, height: `${height}px`, cursor: "pointer" });
    const context = thumbs.getContext("2d");
    context.scale(dense, dense);
    for (let layer = 0; layer < place.layers; layer++) {
      for (let number = 0; number < place.heads; number++) {
        const picture = paintWeights(weights.map(place.place, layer, number));
        context.imageSmoothingEnabled = Math.max(picture.width, picture.height) > size;
        context.drawImage(picture, number * (size + gap), layer * (size + gap), size, size);
      }
    }
  }

  overview.addEventListener("toggle", drawOverview);
  thumbs.addEventListener("click", (event) => {
    const step = THUMB.size + THUMB.gap;
    chosen.layer = Math.min(place.layers - 1, Math.floor(event.offsetY / step));
    chosen.head = Math.min(place.heads - 1, Math.floor(event.offsetX / step));
    pick();
  });
  wide.addEventListener("click", () => {
    element.classList.toggle("wide");
    nameAll();
  });

  function nameAll() {
    heading.textContent = t(title);
    wide.textContent = t(element.classList.contains("wide") ? "narrow" : "wide");
    summary.textContent = t("overview");
    hint.textContent = t("overview-hint");
    map.name(t("map", t(title)));
    drawChoices();
  }

  return {
    element,
    current: () => current,
    mark: map.mark,
    // After it has been put into the document, and when the language or the light has changed.
    redraw() {
      nameAll();
      drawMap();
      drawOverview();
    },
    destroy: map.destroy,
  };
}
