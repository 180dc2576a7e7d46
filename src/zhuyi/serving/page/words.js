/** Words on the page: each element keeps what it says, so that it can say it in the other language at any time. */

import { onChange, texts } from "zhuyi/language.js";
import { chinese } from "zhuyi/words_zh.js";
import { english } from "zhuyi/words_en.js";

export const t = texts({ en: english, zh: chinese });

const PLACES = {
  text: (element, words) => { element.textContent = words; },
  label: (element, words) => { element.setAttribute("aria-label", words); },
  hint: (element, words) => { element.placeholder = words; },
  tip: (element, words) => { element.title = words; },
};
export const isPlace = (name) => name in PLACES;

const said = new WeakMap(); // element -> {place: [key, ...values]}

/** Puts words where they belong in an element: `words` is a key, or [key, ...values]. An empty key says nothing. */
export function say(element, words, place = "text") {
  const [key, ...values] = [words].flat();
  said.set(element, { ...said.get(element), [place]: [key, ...values] });
  element.dataset.said = "";
  PLACES[place](element, key ? t(key, ...values) : "");
}

onChange(() => {
  for (const element of document.querySelectorAll("[data-said]")) {
    for (const [place, words] of Object.entries(said.get(element))) say(element, words, place);
  }
});
