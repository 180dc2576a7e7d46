/** Couplets: an upper line on the right scroll, the model's lower line on the left one, as they hang at a door. */

import { newestOnly, runChoice, settled, statusLine } from "zhuyi/asking.js";
import { button, composes, field, make } from "zhuyi/elements.js";
import { flagList } from "zhuyi/flags.js";
import { ask } from "zhuyi/server.js";

const TYPED_MS = 350;
const N_BEST = 5;
const TEMPERATURE = 0.9;

export function build(runs) {
  const status = statusLine();
  const upper = make("input", { type: "text", lang: "zh", maxlength: 60, hint: "couplet-hint", spellcheck: "false", autocomplete: "off" });
  const right = make("div", { class: "hung upper", lang: "zh", role: "img", label: "couplet-upper" });
  const left = make("div", { class: "hung lower", lang: "zh", role: "img", label: "couplet-lower" });
  const best = make("div", { class: "best", "aria-live": "polite" });
  const choice = runChoice(runs, () => answer(null));
  let seed = 0;

  const hang = (scroll, text) => scroll.replaceChildren(make("span", {}, text || "　"));
  const choose = (text) => {
    hang(left, text);
    for (const each of best.querySelectorAll(".alternative")) each.setAttribute("aria-pressed", String(each.textContent === text));
  };

  const answer = newestOnly(async (signal, sample) => {
    const text = upper.value.trim();
    hang(right, text);
    if (!text) {
      hang(left, "");
      best.replaceChildren();
      status.clear();
      return;
    }
    status.busy("couplet-busy");
    const json = { run: choice.chosen().id, texts: [text], n_best: N_BEST, ...(sample ? { sample } : {}) };
    const { translations: [found] } = await ask("v1/translate", { json, signal, onwait: status.waits });
    status.clear();
    best.replaceChildren(...[flagList(found.flags), listOf(found, choose)].filter(Boolean));
    choose(found.text);
  }, status);

  const later = settled(() => answer(null), TYPED_MS);
  const typed = () => {
    hang(right, upper.value.trim());
    later();
  };
  upper.addEventListener("input", (event) => composes(event) || typed());
  upper.addEventListener("compositionend", typed);
  hang(right, "");
  hang(left, "");
  return make("div", { class: "couplets" },
    make("form", { class: "card", onsubmit: (event) => { event.preventDefault(); answer(null); } },
      choice.element, field("couplet-upper", upper), make("p", { class: "hint", text: "couplet-rules" }),
      button("couplet-again", () => answer({ temperature: TEMPERATURE, seed: (seed += 1) })), status.element, best),
    make("div", { class: "door" }, left, right));
}

function listOf(found, choose) {
  const all = [...new Set([found.text, ...found.alternatives.map((each) => each.text)])];
  return make("ol", { class: "alternatives", lang: "zh" }, ...all.map((text) => make("li", {},
    make("button", { type: "button", class: "alternative", "aria-pressed": "false", onclick: () => choose(text) }, text))));
}
