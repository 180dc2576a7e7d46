/** Elements, in a line each. */

import { isPlace, say } from "zhuyi/words.js";

/**
 * An element: make("button", { type: "button", text: "copy", onclick: copy }, child, ...).
 *
 * `text`, `label`, `hint` and `tip` are words' keys, or lists of a key and its values; `on...` are listeners; others
 * are attributes, left out where they are false or nothing.
 */
export function make(tag, settings = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(settings)) {
    if (value === false || value === undefined || value === null) continue;
    if (isPlace(name)) say(element, value, name);
    else if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

export const button = (text, onclick, settings = {}) => make("button", { type: "button", text, onclick, ...settings });

let numbered = 0;
/** An id that no other element has. */
export const freshId = () => `z${(numbered += 1)}`;

/** A control with its name before it. */
export function field(text, control, settings = {}) {
  control.id ||= freshId();
  return make("div", { class: "field", ...settings }, make("label", { for: control.id, text }), control);
}

/** What one folds out. */
export const fold = (text, ...children) => make("details", {}, make("summary", { text }), ...children);

/** Whether keys pressed now belong to an input method that composes characters. */
export const composes = (event) => event.isComposing || event.keyCode === 229;

export const percent = (share) => `${(share * 100).toFixed(share < 0.0995 ? 1 : 0)}%`;

/** A table of names and shares of one whole, as bars; the longest `most` of them. */
export function bars(pairs, most = 12) {
  const rows = [...pairs].sort((one, other) => other[1] - one[1]).slice(0, most).map(([name, share]) => {
    const bar = make("span", { class: "bar" });
    bar.style.width = `${Math.max(0.5, share * 100)}%`;
    return make("tr", {}, make("th", { scope: "row" }, name),
      make("td", { class: "track", "aria-hidden": "true" }, bar), make("td", { class: "number" }, percent(share)));
  });
  return make("table", { class: "bars" }, make("tbody", {}, ...rows));
}

/** Hands a text or a blob to the reader as a file. */
export function save(name, content, type) {
  const address = URL.createObjectURL(new Blob([content], { type }));
  make("a", { href: address, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(address), 60_000);
}
