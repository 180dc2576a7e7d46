/** What a model's guards say about an answer, in words. */

import { make } from "zhuyi/elements.js";

const KNOWN = [
  "copied", "repetition", "length", "split", "unknown", "relaxed", "cut", "single", "window", "stop", "temperature",
  "uncertain", "joined",
];

/** A list of the flags, or nothing where there are none. */
export function flagList(flags) {
  if (!flags?.length) return null;
  const items = flags.map((flag) => make("li", KNOWN.includes(flag) ? { text: `flag-${flag}` } : {}, ...(KNOWN.includes(flag) ? [] : [flag])));
  return make("ul", { class: "flags", label: "flags" }, ...items);
}
