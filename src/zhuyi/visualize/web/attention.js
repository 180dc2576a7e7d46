// The attention explorer: the texts, where each of their words looks, and the maps of encoder, decoder and cross.
import { t } from "zhuyi/attention_texts.js";
import { columnOf, percent, rowOf, unpackWeights } from "zhuyi/attention_weights.js";
import { decodingPlayer } from "zhuyi/decoding_player.js";
import { onChange, theme } from "zhuyi/language.js";
import { mapPanel } from "zhuyi/map_panel.js";
import { pictureStrip, soundStrip } from "zhuyi/media_strips.js";
import { radioChoice } from "zhuyi/radio_choice.js";
import { tokenStrip } from "zhuyi/token_strip.js";

const MOST_TOLD = 5;

const made = (parent, tag, className = "") => {
  const element = parent.appendChild(document.createElement(tag));
  element.className = className;
  return element;
};

// Puts an explorer into `container`. `data` is what `page_data` of zhuyi.visualize.attention_page makes.
// Returns {show(data) -> promise, redraw(), destroy()}.
export function attentionExplorer(container, data, options = {}) {
  const root = document.createElement("div");
  root.className = "explorer";
  container.replaceChildren(root);
  let view = null;
  let asked = 0;
  const refresh = () => view?.redraw();
  const letGo = (event) => { if (event.key === "Escape") view?.letGo(); };
  const ends = [onChange(refresh), theme.onChange(refresh)];
  document.addEventListener("keydown", letGo);

  async function show(next) {
    const mine = ++asked;
    let weights;
    try {
      weights = await unpackWeights(next);
    } catch (error) {
      if (mine === asked) root.textContent = t("failed");
      console.warn(error);
      return;
    }
    if (mine !== asked) return;  // something newer is to be shown, or nothing any more
    view?.destroy();
    root.replaceChildren();
    view = explorerView(root, next, weights, options);
  }

  function destroy() {
    asked++;
    view?.destroy();
    view = null;
    for (const end of ends) end();
    document.removeEventListener("keydown", letGo);
    root.remove();
  }

  const ready = show(data);
  return { show, redraw: refresh, destroy, ready };
}

function explorerView(root, data, weights) {
  const places = [...weights.places.values()];
  const has = (name) => weights.places.has(name);
  // What the decoder reads first (a sign, or several) stands before what it writes, so that all columns have a chip.
  const shift = has("decoder") ? data.read.length - data.target.length + 1 : 0;
  const medium = data.sound ? "sound" : data.picture ? "picture" : "";
  const suffix = medium ? `-${medium}` : "";
  const chosen = Object.fromEntries(places.map(({ place, layers, heads }) => [place, {
    layer: layers - 1, head: heads > 1 ? -1 : 0,
  }]));
  const first = data.first ?? { place: places.at(-1).place };
  if (first.layer !== undefined) Object.assign(chosen[first.place], { layer: first.layer, head: first.head });
  let shownPlace = first.place;
  let direction = "forward";
  let pointed = null;  // {place, row, column} in a map's terms, or {side, index}
  let kept = data.picture?.prefix ? { side: "source", index: 0 } : null;  // what the class token looks at
  let frame = 0;
  let writing = null;  // the number of the token that the player is at

  const text = made(root, "section", "card");
  const strips = {};
  if (medium || data.source.length) strips.source = makeStrip("source", (on) => {
    if (data.sound) return soundStrip(data.sound, weights.places.get("cross").columns, on);
    return data.picture ? pictureStrip(data.picture, on) : tokenStrip(data.source, on);
  });
  if (data.target.length) strips.target = makeStrip("target", (on) => tokenStrip([...data.read.slice(0, shift), ...data.target], on));
  const told = made(text, "div", "told");
  told.setAttribute("aria-live", "polite");
  const bar = made(text, "form", "choices");
  const directionChoice = radioChoice((value) => { direction = value; mark(); });
  if (has("encoder") || has("decoder")) bar.append(directionChoice.element);
  const hint = made(text, "p", "hint");
  const player = data.likely?.length || data.beam?.length ? decodingPlayer(data, (step) => {
    writing = step;
    pointed = null;
    kept = step === null || step >= data.target.length ? null : { side: "target", index: step + shift };
    mark();
  }) : null;
  if (player) root.append(player.element);
  const placeBar = made(root, "form", "choices places");
  const placeChoice = radioChoice((value) => { shownPlace = value; showPlace(); });
  placeBar.append(placeChoice.element);
  placeBar.hidden = places.length < 2;
  const maps = made(root, "div", "maps");
  const tip = made(root, "div", "tip");
  tip.hidden = true;
  const panels = Object.fromEntries(places.map((place) => [place.place, makePanel(place)]));

  function makeStrip(side, make) {
    const box = made(text, "div", "strip");
    box.dataset.side = side;
    const heading = made(box, "h3");
    const strip = make({
      point: (index) => point(index === null ? null : { side, index }),
      keep: (index) => keep({ side, index }),
      leave: (step, index) => Object.entries(strips).find(([other]) => other !== side)?.[1].focus(index),
    });
    box.append(strip.element);
    return { ...strip, heading };
  }

  function makePanel(place) {
    const name = place.place;
    const named = (tokens) => (tokens.length ? tokens : null);
    const rows = named(name === "encoder" ? data.source : data.target);
    const columns = named(name === "decoder" ? data.read : data.source);
    const inMap = (cell) => cell && { place: name, ...cell };
    const panel = mapPanel({ place, title: titleOf(name), weights, chosen: chosen[name], rows, columns }, {
      pick: () => mark(),
      point: (cell, event) => { point(inMap(cell)); showTip(inMap(cell), event); },
      keep: (cell) => keep(inMap(cell)),
    });
    maps.append(panel.element);
    return panel;
  }

  function titleOf(place) {
    return suffix && place !== "decoder" ? place + suffix : place;
  }

  // Where a row or a column of a map stands in the texts.
  const chipOfRow = (place, row) => (place === "encoder" ? { side: "source", index: row } : { side: "target", index: row + shift });
  const chipOfColumn = (place, column) => (place === "decoder" ? { side: "target", index: column } : { side: "source", index: column });

  // What is shown for a target: a row or a column of each map that it belongs to.
  function relations(target) {
    if (!target) return [];
    if (target.place) {
      const { place, row, column } = target;
      return [row === undefined ? { place, column } : { place, row, across: column }];
    }
    const { side, index } = target;
    const within = side === "source" ? "encoder" : "decoder";
    const row = side === "source" ? index : index - shift;
    const found = [];
    if (has("cross")) found.push(side === "source" ? { place: "cross", column: index } : { place: "cross", row });
    if (has(within)) found.push(direction === "forward" ? { place: within, row } : { place: within, column: index });
    return found.filter(({ place, row: r, column: c }) => {
      const { rows, columns } = weights.places.get(place);
      return r === undefined ? c < columns : r >= 0 && r < rows;
    });
  }

  function point(target) {
    if (JSON.stringify(target) === JSON.stringify(pointed)) return;
    pointed = target;
    schedule();
  }

  function keep(target) {
    kept = JSON.stringify(kept) === JSON.stringify(target) ? null : target;
    mark();
  }

  function schedule() {
    frame ||= requestAnimationFrame(() => { frame = 0; mark(); });
  }

  function mark() {
    const target = pointed ?? kept;
    const found = relations(target);
    const shares = {};
    const outlined = { source: [], target: [] };
    if (target?.side) outlined[target.side].push(target.index);
    const sentences = found.map((relation) => {
      const { place, row, column, across } = relation;
      const map = panels[place].current();
      const looks = row !== undefined;
      const values = looks ? rowOf(map, row) : columnOf(map, column);
      const from = looks ? chipOfRow(place, row) : chipOfColumn(place, column);
      const to = looks ? (i) => chipOfColumn(place, i) : (i) => chipOfRow(place, i);
      const side = to(0).side;
      shares[side] = placed(values, to(0).index, strips[side].count());
      outlined[from.side].push(from.index);
      if (across !== undefined) outlined[side].push(to(across).index);
      return sentence(place, looks, strips[from.side].text(from.index), values, (i) => strips[side].text(to(i).index));
    });
    for (const [side, strip] of Object.entries(strips)) {
      const unwritten = side === "target" && writing !== null ? writing + shift + 1 : Infinity;
      strip.mark({ shares: shares[side], chosen: outlined[side], kept: kept?.side === side ? kept.index : null, unwritten });
    }
    for (const [place, panel] of Object.entries(panels)) {
      const relation = found.find((each) => each.place === place);
      panel.mark(relation?.row, relation?.column ?? relation?.across);
    }
    told.replaceChildren(...sentences.map((line) => {
      const p = document.createElement("p");
      p.textContent = line;
      return p;
    }));
  }

  function placed(values, offset, count) {
    if (!offset && values.length === count) return values;
    const all = new Float32Array(count);
    all.set(values, offset);
    return all;
  }

  function sentence(place, looks, token, values, nameOf) {
    const ranked = [...values.keys()].filter((i) => values[i] >= 0.005).sort((a, b) => values[b] - values[a]);
    const parts = ranked.slice(0, MOST_TOLD).map((i) => `${nameOf(i)} ${percent(values[i])}`);
    const key = `${place}-${looks ? "forward" : "backward"}${place === "decoder" ? "" : suffix}`;
    return t(key, token) + t("colon") + (parts.join(t("comma")) || "–");
  }

  function showTip(target, event) {
    tip.hidden = target?.row === undefined || target?.column === undefined;
    if (tip.hidden) return;
    const { place, row, column } = target;
    const map = panels[place].current();
    const name = (chip) => strips[chip.side].text(chip.index);
    const [from, to] = [chipOfRow(place, row), chipOfColumn(place, column)];
    tip.textContent = `${name(from)} → ${name(to)} ${percent(map.weights[row * map.columns + column])}`;
    const onTheRight = event.clientX + 16 + tip.offsetWidth < innerWidth;
    const x = onTheRight ? event.clientX + 16 : Math.max(4, event.clientX - 16 - tip.offsetWidth);
    tip.style.transform = `translate(${x}px, ${Math.min(event.clientY + 16, innerHeight - 40)}px)`;
  }

  function showPlace() {
    for (const [place, panel] of Object.entries(panels)) panel.element.classList.toggle("shown", place === shownPlace);
  }

  function redraw() {
    for (const [side, strip] of Object.entries(strips)) {
      const ofTarget = data.sound ? "target-sound" : strips.source ? "target" : "target-alone";
      const key = side === "target" ? ofTarget : medium || side;
      const answer = key === "picture" ? t("colon") + t("recognised", data.picture.answer.label, percent(data.picture.answer.probability)) : "";
      strip.heading.textContent = t(key) + answer;
      strip.name(t(key));
    }
    hint.textContent = t("hint");
    directionChoice.set(t(data.picture ? "direction-picture" : "direction"), [["forward", t("forward")], ["backward", t("backward")]], direction);
    placeChoice.set(t("place"), places.map(({ place }) => [place, t(titleOf(place))]), shownPlace);
    for (const panel of Object.values(panels)) panel.redraw();
    player?.redraw();
    mark();
  }

  showPlace();
  redraw();
  return {
    redraw,
    letGo() {
      kept = pointed = writing = null;
      player?.letGo();
      mark();
    },
    destroy() {
      cancelAnimationFrame(frame);
      player?.destroy();
      for (const each of [...Object.values(panels), ...Object.values(strips)]) each.destroy?.();
    },
  };
}
