// How an answer was written: a slider through its steps, what the beam held at each, and the likeliest tokens.
import { t } from "zhuyi/attention_texts.js";
import { percent } from "zhuyi/attention_weights.js";
import { readable } from "zhuyi/token_strip.js";

const PAUSE_MS = 1000;
const MOST_FINISHED = 5;

const made = (parent, tag, className = "", text = "") => {
  const element = parent.appendChild(document.createElement(tag));
  element.className = className;
  element.textContent = text;
  return element;
};
const joined = (tokens) => tokens.join("").replaceAll("▁", " ").trim();
const shown = (number) => number.toFixed(2).replace("-", "−");

// The tokens of a beginning, the first one first.
function wayTo(beam, step, place) {
  const tokens = [];
  for (let k = step; k >= 0; k--) {
    tokens.unshift(beam[k][place].token);
    place = beam[k][place].parent;
  }
  return tokens;
}

// `onStep` gets the number of a token being written, from 0, or null for the whole answer.
export function decodingPlayer({ target, likely = [], beam = [] }, onStep) {
  const count = Math.max(target.length, beam.length, likely.length);
  const element = document.createElement("section");
  element.className = "player card";
  const title = made(element, "h2");
  const bar = made(element, "div", "bar");
  const [before, play, after] = [0, 1, 2].map(() => Object.assign(made(bar, "button"), { type: "button" }));
  play.className = "main";
  const slider = Object.assign(made(bar, "input"), { type: "range", min: 1, max: count, value: count });
  const status = made(bar, "output", "status");
  const columns = made(element, "div", "columns");
  const held = made(columns, "div", "held");
  const guesses = made(columns, "div", "guesses");
  let step = null;  // from 0; null: the whole answer
  let timer = 0;

  function go(next) {
    step = next === null ? null : Math.max(0, Math.min(count - 1, next));
    slider.value = step === null ? count : step + 1;
    onStep(step);
    redraw();
  }

  function stop() {
    clearInterval(timer);
    timer = 0;
    nameButtons();
  }

  function start() {
    go(step === null || step === count - 1 ? 0 : step);
    timer = setInterval(() => (step >= count - 1 ? stop() : go(step + 1)), PAUSE_MS);
    nameButtons();
  }

  before.addEventListener("click", () => { stop(); go((step ?? count) - 1); });
  after.addEventListener("click", () => { stop(); go((step ?? -1) + 1); });
  play.addEventListener("click", () => (timer ? stop() : start()));
  slider.addEventListener("input", () => { stop(); go(Number(slider.value) - 1); });

  function nameButtons() {
    before.textContent = t("before");
    after.textContent = t("after");
    play.textContent = t(timer ? "pause" : "play");
  }

  function redraw() {
    title.textContent = t("decoding");
    nameButtons();
    slider.setAttribute("aria-label", t("decoding"));
    const at = step ?? count - 1;
    const word = target[at] === undefined ? "" : `${t("colon")}${readable(target[at])}`;
    const line = step === null ? t("whole") : t("step", at + 1, count) + word;
    status.textContent = line;
    slider.setAttribute("aria-valuetext", line);
    held.replaceChildren();
    held.hidden = !beam.length;
    guesses.replaceChildren();
    if (beam.length) drawHeld(Math.min(at, beam.length - 1));
    if (likely[at]) drawGuesses(likely[at], target[at]);
  }

  function drawHeld(at) {
    made(held, "h3", "", t("beam"));
    const table = made(held, "table");
    const head = made(made(table, "thead"), "tr");
    for (const key of ["text", "log-prob", "score"]) made(head, "th", "", t(key)).scope = "col";
    const body = made(table, "tbody");
    const next = beam[at + 1];
    const open = beam[at].flatMap((each, place) => {
      if (each.state === "finished") return [];
      const isDropped = next !== undefined && !next.some((child) => child.parent === place);
      return [{ each, tokens: wayTo(beam, at, place), note: isDropped ? "dropped" : "" }];
    });
    const ended = beam.slice(0, at + 1).flatMap((all, k) => all.flatMap((each, place) => (
      each.state === "finished" ? [{ each, tokens: wayTo(beam, k, place), note: "finished" }] : []
    )));
    const byScore = (a, b) => b.each.score - a.each.score;
    const rows = [...open, ...ended.sort(byScore).slice(0, MOST_FINISHED)].sort(byScore);
    for (const { each, tokens, note } of rows) drawRow(body, each, tokens, note);
  }

  function drawRow(body, each, tokens, note) {
    const row = made(body, "tr", [each.leads ? "leads" : "", note].join(" "));
    const cell = made(row, "td", "words");
    const last = tokens.at(-1);
    const all = joined(tokens);
    const start = note === "finished" ? joined(tokens.slice(0, -1)) : all.slice(0, all.length - joined([last]).length);
    made(cell, "span", "", start);
    if (note !== "finished") made(cell, "strong", "", readable(last));
    const notes = [...(note ? [t(note)] : []), ...(each.leads ? [t("answer")] : [])];
    if (notes.length) made(cell, "em", "note", notes.join(t("comma")));
    made(row, "td", "number", shown(each.log_prob));
    made(row, "td", "number", shown(each.score));
  }

  function drawGuesses(candidates, written) {
    made(guesses, "h3", "", t("likely"));
    const list = made(guesses, "ol");
    for (const [token, probability] of candidates) {
      const item = made(list, "li", token === written ? "written" : "");
      made(item, "span", "word", readable(token));
      const track = made(item, "span", "track");
      made(track, "i").style.width = `${100 * probability}%`;
      made(item, "span", "number", percent(probability));
    }
  }

  redraw();
  return { element, redraw, letGo() { stop(); step = null; slider.value = count; redraw(); }, destroy: stop };
}
