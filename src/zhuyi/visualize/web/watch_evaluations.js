// Going through a run's evaluations: what the model wrote at each, and where it looked.
import { percent, unpackWeights } from "zhuyi/attention_weights.js";
import { lineChart } from "zhuyi/curves.js";
import { heatMap } from "zhuyi/heat_map.js";
import { onChange, theme } from "zhuyi/language.js";
import { readable } from "zhuyi/token_strip.js";
import { agreement } from "zhuyi/watch_runs.js";
import { t } from "zhuyi/watch_texts.js";

const MILLISECONDS_A_FRAME = 350;

const made = (parent, tag, className = "", text = "") => {
  const element = parent.appendChild(document.createElement(tag));
  element.className = className;
  if (text) element.textContent = text;
  return element;
};

/** The map of one evaluation, {weights, rows, columns, top, source, target}; null where there is none. */
async function mapOf(row) {
  const { source, target, weights } = row.cross_attention ?? {};
  if (!Array.isArray(source) || !Array.isArray(target)) return null;
  try {
    const places = [{ place: "cross", layers: 1, heads: 1, rows: target.length, columns: source.length }];
    const map = (await unpackWeights({ weights, places })).map("cross", 0, 0);
    return { ...map, source: source.map(String), target: target.map(String) };
  } catch (error) {
    console.info(error);  // a damaged line of a file is nothing that the page did
    return null;
  }
}

/** How many columns its rows look at, on average: the exponential of their entropy. */
export function spread({ weights, rows, columns }) {
  let bits = 0;
  for (let row = 0; row < rows; row++) {
    const shares = weights.subarray(row * columns, (row + 1) * columns);
    const whole = shares.reduce((a, b) => a + b, 0);
    for (const share of shares) if (share > 0) bits -= (share / whole) * Math.log(share / whole);
  }
  return Math.exp(bits / rows);
}

/**
 * Puts a slider over evaluations into `container`, and what belongs to the one it stands at.
 *
 * `show(run, runs)` shows a run's, and the sharpening of all runs; as long as the slider stands at the end it stays there.
 * The container is sent "evaluation" events, their detail {step}.
 */
export function evaluationsView(container) {
  const unpacked = new WeakMap();  // a row's map, once it was asked for
  let run = null, runs = [], place = 0, atEnd = true, timer = 0, wanted = 0;

  const bar = made(container, "div", "player");
  const earlier = made(bar, "button"), play = made(bar, "button", "main"), later = made(bar, "button");
  for (const button of [earlier, play, later]) button.type = "button";
  const slider = Object.assign(made(bar, "input"), { type: "range", min: 0, step: 1 });
  const stepText = made(bar, "output");
  const none = made(container, "p", "hint");
  const texts = made(container, "div", "samples");
  const agreeing = made(container, "p", "hint");
  const history = made(container, "details");
  const historyTitle = made(history, "summary");
  const historyRows = made(history, "div", "history");
  const looks = made(container, "section", "looks");
  const looksTitle = made(looks, "h3");
  const mapBox = made(looks, "div", "explorer");
  const tip = made(looks, "p", "told");
  tip.setAttribute("aria-live", "polite");
  const mapHint = made(looks, "p", "hint");
  const list = made(looks, "details");
  const listTitle = made(list, "summary");
  const listRows = made(list, "ul");
  const chartBox = made(looks, "div", "spread");
  const chartTitle = made(chartBox, "h3");
  const chart = lineChart(chartBox, { series: [], height: 200 });
  const chartHint = made(chartBox, "p", "hint");
  let shownMap = null;

  const map = heatMap({
    point(cell) {
      map.mark(cell?.row, cell?.column);
      const both = cell?.row !== undefined && cell?.column !== undefined;
      tip.textContent = both ? pairText(cell.row, cell.column) : "";
    },
    keep() {},
  });
  mapBox.append(map.element);

  const rows = () => run?.samples ?? [];
  const unpack = (row) => unpacked.get(row) ?? unpacked.set(row, mapOf(row)).get(row);
  const pairText = (row, column) => t(
    "looksMost", readable(shownMap.target[row]), readable(shownMap.source[column]),
    percent(shownMap.weights[row * shownMap.columns + column]),
  );

  function stand(at) {
    place = Math.max(0, Math.min(rows().length - 1, at));
    atEnd = place >= rows().length - 1;
    drawTexts();
    drawMap();
    const step = rows()[place]?.step;
    if (step !== undefined) container.dispatchEvent(new CustomEvent("evaluation", { detail: { step } }));
  }

  function stop() {
    clearInterval(timer);
    timer = 0;
    play.textContent = t("play");
  }

  earlier.addEventListener("click", () => { stop(); stand(place - 1); });
  later.addEventListener("click", () => { stop(); stand(place + 1); });
  slider.addEventListener("input", () => { stop(); stand(Number(slider.value)); });
  play.addEventListener("click", () => {
    if (timer) return stop();
    if (atEnd) stand(0);
    play.textContent = t("pause");
    timer = setInterval(() => { if (atEnd) stop(); else stand(place + 1); }, MILLISECONDS_A_FRAME);
  });
  history.addEventListener("toggle", () => history.open && drawHistory());

  function drawTexts() {
    const row = rows()[place];
    const last = Math.max(0, rows().length - 1);
    Object.assign(slider, { max: last, value: place, disabled: !last });
    [earlier.disabled, later.disabled, play.disabled] = [place === 0, place === last, !last];
    stepText.textContent = row ? t("stepNumber", row.step.toLocaleString("en-US")) : "";
    slider.setAttribute("aria-valuetext", stepText.textContent);
    bar.hidden = !row;
    none.textContent = row ? "" : t("noSamples");
    none.hidden = Boolean(row);
    texts.replaceChildren(...(row?.samples ?? []).map(sampleCard));
    agreeing.hidden = history.hidden = !row?.samples.length;
    if (history.open) drawHistory();
  }

  function sampleCard({ source, text, reference }) {
    const card = document.createElement("dl");
    for (const [key, value] of [["source", source], ["text", text], ["reference", reference]]) {
      made(card, "dt", "", t(key));
      const told = made(card, "dd", key);
      if (key !== "text") told.textContent = value;
      else for (const [piece, agrees] of agreement(value, reference)) told.append(agrees && piece.trim() ? made(card, "u", "", piece) : piece);
    }
    return card;
  }

  /** Of each sample what was written at all evaluations, where it changed. */
  function drawHistory() {
    const count = Math.max(0, ...rows().map(({ samples }) => samples.length));
    historyRows.replaceChildren(...Array.from({ length: count }, (_, number) => {
      const found = document.createElement("ol");
      made(found, "li", "", rows().find(({ samples }) => samples[number]).samples[number].source).className = "source";
      let before = null;
      for (const { step, samples } of rows()) {
        if (!samples[number] || samples[number].text === before) continue;
        before = samples[number].text;
        const line = made(found, "li");
        made(line, "b", "", step.toLocaleString("en-US"));
        line.append(before);
      }
      return found;
    }));
  }

  async function drawMap() {
    const mine = ++wanted;
    const row = rows()[place];
    const found = row ? await unpack(row) : null;
    if (mine !== wanted) return;  // the slider has gone on
    looks.hidden = !row;
    for (const part of [mapBox, mapHint, list]) part.hidden = !found;
    tip.textContent = found || !row ? "" : t(row.cross_attention ? "failed" : "noMap");
    const sameWords = found && shownMap && found.source.join() === shownMap.source.join() && found.target.join() === shownMap.target.join();
    shownMap = found;
    if (!found) return;
    map.show({ ...found, top: 1 }, found.target, found.source);  // one scale for all: what sharpens grows darker
    if (!sameWords) map.mark();
    map.name(t("map", row.step));
    listRows.replaceChildren(...found.target.map((_, i) => {
      const shares = found.weights.subarray(i * found.columns, (i + 1) * found.columns);
      const line = document.createElement("li");
      line.textContent = pairText(i, shares.indexOf(shares.reduce((a, b) => Math.max(a, b))));
      return line;
    }));
  }

  async function drawSpread() {
    const series = await Promise.all(runs.map(async ({ name, number, samples }) => {
      const maps = await Promise.all(samples.map(unpack));
      return { name, colour: number, points: maps.flatMap((found, i) => (found ? [[samples[i].step, spread(found)]] : [])) };
    }));
    const drawn = series.filter(({ points }) => points.length);
    chartBox.hidden = !drawn.length;
    chart.update({ series: drawn, xLabel: t("step") });
  }

  function name() {
    play.textContent = t(timer ? "pause" : "play");
    for (const [button, sign, key] of [[earlier, "‹", "previous"], [later, "›", "next"]]) {
      button.textContent = sign;
      button.setAttribute("aria-label", t(key));
      button.title = t(key);
    }
    slider.setAttribute("aria-label", t("evaluation"));
    for (const [element, key] of [
      [agreeing, "agreeing"], [historyTitle, "overTime"], [looksTitle, "looks"], [mapHint, "lookedHint"],
      [listTitle, "mostLooked"], [chartTitle, "spread"], [chartHint, "spreadHint"],
    ]) element.textContent = t(key);
    drawTexts();
    drawMap();
    drawSpread();
  }

  onChange(name);
  theme.onChange(() => map.redraw());
  // A canvas does not draw again by itself when a font arrives.
  document.fonts.addEventListener("loadingdone", () => map.redraw());
  name();
  return {
    show(next, all) {
      const another = next !== run;
      [run, runs] = [next, all];
      if (another) stop();
      if (another || atEnd) place = Math.max(0, rows().length - 1);
      place = Math.min(place, Math.max(0, rows().length - 1));
      atEnd = place >= rows().length - 1 && !timer;
      drawTexts();
      drawMap();
      drawSpread();
    },
    /** Go to the evaluation that is nearest to a step. */
    goTo(step) {
      const steps = rows().map((row) => row.step);
      if (!steps.length) return;
      stop();
      stand(steps.indexOf(steps.reduce((best, each) => (Math.abs(each - step) < Math.abs(best - step) ? each : best))));
    },
    step: () => (atEnd ? null : rows()[place]?.step),
  };
}
