/** Terms that a translation has to keep to, as people write them down: `source = target`, a line each. */

import { field, fold, make } from "zhuyi/elements.js";

const DIVIDED_BY = /\t|\s*(?:=>|->|→|＝|=)\s*/;

/** Pairs of a text's lines; a word alone stands for itself, and a line with one side empty is still being written. */
export function readTerms(text) {
  return text.split("\n").map((line) => {
    const [source, target = source] = line.split(DIVIDED_BY, 2);
    return [source.trim(), target.trim()];
  }).filter(([source, target]) => source && target);
}

export function termsField(oninput) {
  const area = make("textarea", { rows: 3, oninput, hint: "terms-hint", spellcheck: "false" });
  const element = fold("terms", field("terms-name", area), make("p", { class: "hint", text: "terms-how" }));
  return { element, terms: () => readTerms(area.value) };
}
