// A row of tokens as buttons: point at one, keep one, walk with the arrow keys; each is coloured by its share.
import { percent } from "zhuyi/attention_weights.js";

const SPACE = "▁";
const LEAST = 0.005;  // a share below it has no colour

export const readable = (token) => (token.replaceAll(SPACE, "") ? token.replaceAll(SPACE, " ").trim() : "␣");
export const isChinese = (token) => /^[\u2e80-\uffef]+$/.test(token);
const beginsWord = (token) => token?.startsWith(SPACE) || /^<.*>$/.test(token);

// `on` has point(index or null), keep(index), leave(step) for the arrow up or down.
export function tokenStrip(tokens, on) {
  const element = document.createElement("div");
  element.className = "tokens";
  element.setAttribute("role", "group");
  const chips = tokens.map(makeChip);
  element.append(...chips);
  let coloured = new Set();
  let outlined = new Set();

  function makeChip(token, index, all) {
    const chip = document.createElement("button");
    chip.type = "button";
    chip.className = beginsWord(all[index + 1]) ? "token last" : "token";
    chip.title = token;
    chip.tabIndex = index ? -1 : 0;  // one stop of the Tab key a strip; arrows go on from there
    chip.setAttribute("aria-pressed", "false");
    chip.append(readable(token), document.createElement("small"));
    return chip;
  }

  const indexOf = (event) => chips.indexOf(event.target.closest?.(".token"));
  const pointed = (event) => { const index = indexOf(event); if (index >= 0) on.point(index); };
  element.addEventListener("pointerover", (event) => event.pointerType === "mouse" && pointed(event));
  element.addEventListener("pointerleave", () => on.point(null));
  element.addEventListener("focusin", (event) => event.target.matches(":focus-visible") && pointed(event));
  element.addEventListener("focusout", () => on.point(null));
  element.addEventListener("click", (event) => { const index = indexOf(event); if (index >= 0) on.keep(index); });
  element.addEventListener("keydown", (event) => {
    const here = indexOf(event);
    const next = { ArrowRight: here + 1, ArrowLeft: here - 1, Home: 0, End: chips.length - 1 }[event.key];
    if (event.key === "ArrowUp" || event.key === "ArrowDown") on.leave(event.key === "ArrowUp" ? -1 : 1, here);
    else if (next === undefined || !chips[next]) return;
    else focus(next);
    event.preventDefault();
  });

  function focus(index) {
    const next = chips[Math.min(index, chips.length - 1)];
    for (const chip of chips) if (chip.tabIndex === 0) chip.tabIndex = -1;
    next.tabIndex = 0;
    next.focus();
  }

  function colour(shares) {
    let top = LEAST;
    for (const share of shares ?? []) top = Math.max(top, share);
    const now = new Set();
    // Few of many tokens have a share that is seen: only what had or has one is touched.
    shares?.forEach((share, index) => { if (share >= LEAST) now.add(index); });
    for (const index of coloured) if (!now.has(index)) paint(chips[index], 0, "");
    for (const index of now) paint(chips[index], shares[index] / top, percent(shares[index]));
    coloured = now;
  }

  function paint(chip, strength, text) {
    chip.style.setProperty("--share", strength.toFixed(3));
    chip.classList.toggle("strong", strength > 0.6);
    chip.lastChild.textContent = text;
  }

  return {
    element,
    focus,
    // shares: a number a token, or null; chosen: indices with an outline; kept: the index that a click holds.
    mark({ shares = null, chosen = [], kept = null, unwritten = Infinity }) {
      colour(shares);
      const now = new Set(chosen.filter((index) => chips[index]));
      for (const index of outlined) chips[index].classList.remove("chosen");
      for (const index of now) chips[index].classList.add("chosen");
      outlined = now;
      chips.forEach((chip, index) => {
        const isKept = String(index === kept);
        if (chip.getAttribute("aria-pressed") !== isKept) chip.setAttribute("aria-pressed", isKept);
        if (chip.classList.contains("unwritten") !== index >= unwritten) chip.classList.toggle("unwritten", index >= unwritten);
      });
    },
    text: (index) => readable(chips[index].title),
    count: () => chips.length,
    name(text) { element.setAttribute("aria-label", text); },
  };
}
