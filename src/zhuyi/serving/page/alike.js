/** How alike texts are: the cosines of their embeddings, as a table. */

import { newestOnly, runChoice, settled, statusLine } from "zhuyi/asking.js";
import { composes, field, make } from "zhuyi/elements.js";
import { ask } from "zhuyi/server.js";

const TYPED_MS = 500;
const MOST = 12;

export function build(runs) {
  const status = statusLine();
  const area = make("textarea", { rows: 5, hint: "alike-hint", spellcheck: "false" });
  const answers = make("div", { class: "scrolled", role: "region", label: "alike-table", "aria-live": "polite", tabindex: 0 });
  const choice = runChoice(runs, () => compare());

  const compare = newestOnly(async (signal) => {
    const texts = area.value.split("\n").map((text) => text.trim()).filter(Boolean).slice(0, MOST);
    if (texts.length < 2) {
      answers.replaceChildren();
      status.show(texts.length ? "alike-two" : "");
      return;
    }
    status.busy("thinking");
    const json = { model: choice.chosen().id, input: texts };
    const { data } = await ask("v1/embeddings", { json, signal, onwait: status.waits });
    status.clear();
    answers.replaceChildren(table(texts, data.map((each) => each.embedding)));
  }, status);

  const typed = settled(compare, TYPED_MS);
  area.addEventListener("input", (event) => composes(event) || typed());
  area.addEventListener("compositionend", typed);
  return make("div", { class: "stack" },
    make("div", { class: "card" }, choice.element, field("alike-texts", area), make("p", { class: "hint", text: "alike-how" }), status.element),
    answers);
}

function table(texts, vectors) {
  const head = make("tr", {}, make("td"), ...texts.map((_, i) => make("th", { scope: "col" }, String(i + 1))));
  const rows = texts.map((text, i) => make("tr", {}, make("th", { scope: "row" }, `${i + 1}. ${text}`),
    ...texts.map((_, j) => cell(vectors[i].reduce((sum, x, k) => sum + x * vectors[j][k], 0)))));
  return make("table", { class: "alike" }, make("thead", {}, head), make("tbody", {}, ...rows));
}

function cell(cosine) {
  const found = make("td", { class: "number" }, cosine.toFixed(2));
  found.style.setProperty("--share", Math.max(0, cosine) * 0.45);
  return found;
}
