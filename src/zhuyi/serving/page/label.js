/** Texts to labels: each line by itself, the shares of one text's labels as bars. */

import { newestOnly, runChoice, settled, statusLine } from "zhuyi/asking.js";
import { attentionPane } from "zhuyi/attention_pane.js";
import { bars, composes, field, fold, make, percent } from "zhuyi/elements.js";
import { flagList } from "zhuyi/flags.js";
import { ask } from "zhuyi/server.js";

const TYPED_MS = 350;

export function build(runs) {
  const status = statusLine();
  const area = make("textarea", { rows: 4, hint: "label-hint", spellcheck: "false" });
  const second = make("textarea", { rows: 2, spellcheck: "false" });
  const secondField = field("label-second", second);
  const answers = make("div", { class: "answers", role: "region", label: "labels-found", "aria-live": "polite" });
  const pane = attentionPane();
  const look = fold("attention-text", pane.element);
  const choice = runChoice(runs, (run) => {
    secondField.hidden = !run.pairs;
    look.hidden = !run.can.includes("attention");
    classify();
  });

  const classify = newestOnly(async (signal) => {
    const run = choice.chosen();
    const texts = run.pairs ? [area.value].filter((text) => text.trim()) : area.value.split("\n").filter((text) => text.trim());
    if (!texts.length) {
      answers.replaceChildren();
      pane.clear();
      status.clear();
      return;
    }
    status.busy("thinking");
    const json = { run: run.id, texts, ...(run.pairs ? { seconds: [second.value] } : {}) };
    const { classifications } = await ask("v1/classify", { json, signal, onwait: status.waits });
    status.clear();
    answers.replaceChildren(...classifications.map((found, i) => card(texts[i], found, texts.length > 1)));
    if (look.open) pane.show({ run: run.id, text: run.pairs ? `${texts[0]}\t${second.value}` : texts[0] });
  }, status);

  const typed = settled(classify, TYPED_MS);
  for (const each of [area, second]) {
    each.addEventListener("input", (event) => composes(event) || typed());
    each.addEventListener("compositionend", typed);
  }
  look.addEventListener("toggle", () => look.open && classify());
  choice.choose(runs[0]);
  return make("div", { class: "stack" },
    make("div", { class: "card" }, choice.element, field("label-texts", area), secondField, status.element), answers, look);
}

function card(text, found, isOneOfSeveral) {
  return make("section", { class: "card" },
    isOneOfSeveral ? make("p", { class: "faint" }, text) : null,
    make("p", { class: "verdict" }, make("strong", {}, found.label), ` ${percent(found.probability)}`),
    flagList(found.flags), bars(Object.entries(found.probabilities)));
}
