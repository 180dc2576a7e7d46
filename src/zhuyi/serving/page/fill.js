/** Words for the gaps of a text. */

import { newestOnly, runChoice, settled, statusLine } from "zhuyi/asking.js";
import { attentionPane } from "zhuyi/attention_pane.js";
import { bars, button, composes, field, fold, make } from "zhuyi/elements.js";
import { ask } from "zhuyi/server.js";

const TYPED_MS = 350;
const TOP = 8;
const GAP = "[MASK]";

export function build(runs) {
  const status = statusLine();
  const area = make("textarea", { rows: 3, hint: "fill-hint", spellcheck: "false" });
  const answers = make("div", { class: "answers", role: "region", label: "words-found", "aria-live": "polite" });
  const choice = runChoice(runs, () => fill());
  const pane = attentionPane();
  const look = fold("attention-text", pane.element);

  const fill = newestOnly(async (signal) => {
    const text = area.value;
    if (!text.includes(GAP)) {
      answers.replaceChildren();
      pane.clear();
      status.show(text.trim() ? "fill-no-gap" : "");
      return;
    }
    status.busy("thinking");
    const run = choice.chosen().id;
    const { gaps } = await ask("v1/fill", { json: { run, text, top: TOP }, signal, onwait: status.waits });
    status.clear();
    answers.replaceChildren(...gaps.map((found, number) => make("section", { class: "card" },
      gaps.length > 1 ? make("h3", { text: ["fill-gap", number + 1] }) : null,
      bars(found.map((each) => [each.word, each.probability]), TOP))));
    if (look.open) pane.show({ run, text });
  }, status);

  const typed = settled(fill, TYPED_MS);
  area.addEventListener("input", (event) => composes(event) || typed());
  area.addEventListener("compositionend", typed);
  look.addEventListener("toggle", () => look.open && fill());
  return make("div", { class: "stack" },
    make("div", { class: "card" }, choice.element, field("text", area),
      make("div", { class: "row" }, button("fill-put-gap", () => {
        area.setRangeText(GAP, area.selectionStart, area.selectionEnd, "end");
        area.focus();
        typed();
      })), status.element),
    answers, look);
}
