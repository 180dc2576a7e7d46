/** Translate as one types: line by line, with alternatives, and where the model looked. */

import { newestOnly, runChoice, settled, statusLine } from "zhuyi/asking.js";
import { attentionPane } from "zhuyi/attention_pane.js";
import { button, composes, field, make } from "zhuyi/elements.js";
import { flagList } from "zhuyi/flags.js";
import { current, onChange } from "zhuyi/language.js";
import { ask } from "zhuyi/server.js";
import { termsField } from "zhuyi/terms.js";
import { say } from "zhuyi/words.js";

const TYPED_MS = 280;
const LINES_TOGETHER = 24;
const MOST_KEPT = 400;
const N_BEST = 4;

export function build(runs) {
  const view = makeView(runs);
  const found = new Map(); // what stands for a line under run, task and terms -> its translation
  const chosen = new Map(); // the same -> the alternative that the reader prefers
  let lines = [];
  let line = 0; // the one whose alternatives and maps are shown

  const run = view.runs.chosen;
  const keyOf = (text) => JSON.stringify([run().id, view.task(), view.terms.terms(), text]);
  const textOf = (text) => chosen.get(keyOf(text)) ?? found.get(keyOf(text))?.text;

  const translate = newestOnly(async (signal) => {
    const missing = [...new Set(lines.filter((text) => text.trim() && !found.has(keyOf(text))))];
    if (missing.length) view.status.busy("translating");
    for (let first = 0; first < missing.length; first += LINES_TOGETHER) {
      const texts = missing.slice(first, first + LINES_TOGETHER);
      const keys = texts.map(keyOf);
      const answer = await ask("v1/translate", { json: request(texts), signal, onwait: view.status.waits });
      keys.forEach((key, i) => found.set(key, answer.translations[i]));
      show();
    }
    view.status.clear();
    for (const key of [...found.keys()].slice(0, Math.max(0, found.size - MOST_KEPT))) found.delete(key);
    show();
  }, view.status);

  function request(texts) {
    const terms = view.terms.terms();
    return {
      run: run().id, texts, n_best: N_BEST,
      ...(view.task() ? { task: view.task() } : {}), ...(terms.length ? { glossary: terms } : {}),
    };
  }

  function show() {
    view.showLines(lines.map(textOf), line, lines);
    const text = lines[line] ?? "";
    const translation = found.get(keyOf(text));
    view.showBest(translation, textOf(text), lines.length > 1 ? line + 1 : 0, (alternative) => {
      chosen.set(keyOf(text), alternative);
      show();
    });
    if (!run().can.includes("attention") || !view.wantsAttention() || !translation) view.attention.clear();
    else view.attention.show(maps(text, translation));
  }

  /** How the run came to its own answer it can tell step by step; any other text is only looked at. */
  function maps(text, translation) {
    const isOwn = textOf(text) === translation.text && !view.terms.terms().length;
    return {
      run: run().id, text, ...(isOwn ? { steps: true } : { target: textOf(text) }), ...(view.task() ? { task: view.task() } : {}),
    };
  }

  const later = settled(translate, TYPED_MS);
  const changed = () => {
    lines = view.source.value.split("\n");
    line = view.caretLine();
    show();
    later();
  };
  view.source.addEventListener("input", (event) => composes(event) || changed());
  view.source.addEventListener("compositionend", changed);
  document.addEventListener("selectionchange", () => {
    if (document.activeElement !== view.source || view.caretLine() === line) return;
    line = view.caretLine();
    show();
  });
  view.onchange(changed);
  view.onswap(() => {
    const kept = lines.map((text) => textOf(text) ?? "");
    view.source.value = kept.join("\n");
    changed();
  });
  return view.element;
}

/** The elements, and what may be asked of them. */
function makeView(runs) {
  let changed = () => {};
  let swapped = () => {};
  const source = make("textarea", { id: "source", rows: 5, hint: "type-here", label: "source-text", spellcheck: "false" });
  const target = make("div", { id: "target", class: "text", role: "region", label: "translation", "aria-live": "polite" });
  const best = make("div", { class: "best" });
  const status = statusLine();
  const attention = attentionPane();
  const terms = termsField(() => changed());
  const tasks = make("select", { onchange: () => changed() });
  const tasksField = field("task", tasks, { hidden: true });
  const swap = make("button", { type: "button", class: "plain swap", label: "swap", tip: "swap", onclick: () => turnRound() }, "⇄");
  const look = button("attention-hide", () => turnAttention(), { class: "look" });
  let isLooking = true;
  const copy = button("copy", () => copyText(target, status), { class: "plain" });
  const choice = runChoice(runs, () => follow(), pairName);
  choice.element.hidden = false;
  say(choice.element.querySelector("label"), "pair");

  const element = make("div", { class: "workbench" },
    make("div", { class: "row bar-above" }, choice.element, swap, tasksField, look),
    make("div", { class: "texts" },
      make("div", { class: "card" }, source, terms.element),
      make("div", { class: "card" }, make("div", { class: "target-head row" }, status.element, copy), target, best)),
    attention.element);

  const counterpart = () => runs.find((run) => run.source === choice.chosen().target && run.target === choice.chosen().source && run !== choice.chosen());
  function follow() {
    const run = choice.chosen();
    swap.hidden = !counterpart();
    tasks.replaceChildren(...(run.tasks ?? []).map((task) => make("option", { value: task }, task)));
    tasksField.hidden = (run.tasks ?? []).length < 2;
    terms.element.hidden = !run.can.includes("glossary");
    look.hidden = !run.can.includes("attention");
    showAttention();
    source.lang = run.source || "";
    target.lang = run.target || "";
    changed();
  }
  function turnRound() {
    const other = counterpart();
    if (!other) return;
    swapped(); // the translation becomes the text while the run is still the old one
    choice.choose(other);
  }
  function showAttention() {
    const wanted = isLooking && choice.chosen().can.includes("attention");
    attention.element.hidden = !wanted;
    element.classList.toggle("alone", !wanted);
  }
  function turnAttention() {
    isLooking = !isLooking;
    say(look, isLooking ? "attention-hide" : "attention-show");
    showAttention();
    changed();
  }
  onChange(() => {
    const options = choice.element.querySelectorAll("option");
    runs.forEach((run, number) => { options[number].textContent = pairName(run); });
  });
  queueMicrotask(follow);

  return {
    element, source, status, attention, terms, runs: choice,
    task: () => (tasksField.hidden ? "" : tasks.value),
    wantsAttention: () => !attention.element.hidden,
    onchange: (work) => { changed = work; },
    onswap: (work) => { swapped = work; },
    caretLine: () => source.value.slice(0, source.selectionStart ?? 0).split("\n").length - 1,
    showLines: (texts, line, sources) => showLines(target, texts, line, sources),
    showBest: bestView(best),
  };
}

/** The lines as paragraphs; only what has changed is touched, for what is touched is read aloud. */
function showLines(target, texts, line, sources) {
  while (target.children.length > texts.length) target.lastChild.remove();
  texts.forEach((text, number) => {
    const place = target.children[number] ?? target.appendChild(make("p"));
    if (place.textContent !== (text ?? "")) place.textContent = text ?? "";
    place.classList.toggle("current", number === line && texts.length > 1);
    place.classList.toggle("coming", text === undefined && Boolean(sources[number].trim()));
  });
}

/** Shows remarks and other translations, which are built anew for another translation alone: a pressed one keeps the focus. */
function bestView(best) {
  let shown = [];
  return (translation, text, number, onchoose) => {
    if (translation !== shown[0] || number !== shown[1]) {
      best.replaceChildren(...[flagList(translation?.flags), alternativesOf(translation, number, onchoose)].filter(Boolean));
    }
    shown = [translation, number];
    for (const each of best.querySelectorAll(".alternative")) each.setAttribute("aria-pressed", String(each.textContent === text));
  };
}

/** A list of what else it might be; pressing one puts it in the translation's place. */
function alternativesOf(translation, number, onchoose) {
  if (!translation?.alternatives?.length) return null;
  const others = translation.alternatives.filter(({ text }) => text.trim()); // nothing at all is no choice
  const all = [{ text: translation.text, score: translation.score }, ...others];
  const items = all.map((each) => make("li", {},
    make("button", { type: "button", class: "alternative", onclick: () => onchoose(each.text) }, each.text),
    make("small", { tip: "score" }, each.score.toFixed(2))));
  return make("section", { label: "alternatives" },
    make("h3", { text: number ? ["alternatives-of", number] : "alternatives" }), make("ol", { class: "alternatives" }, ...items));
}

function pairName(run) {
  if (!run.source || !run.target) return run.id;
  const name = (code) => {
    try {
      return new Intl.DisplayNames([current()], { type: "language" }).of(code);
    } catch {
      return code; // a language that is made up
    }
  };
  return `${name(run.source)} → ${name(run.target)} · ${run.id}`;
}

async function copyText(target, status) {
  const text = [...target.children].map((line) => line.textContent).join("\n");
  try {
    await navigator.clipboard.writeText(text);
    status.show("copied");
  } catch {
    getSelection().selectAllChildren(target); // no clipboard without https
    status.show("copy-selected");
  }
}
