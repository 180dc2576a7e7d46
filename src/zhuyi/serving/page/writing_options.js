/** How a language model is to write: what can be set, beginning with the run's own choice. */

import { field, fold, make } from "zhuyi/elements.js";

const OPTIONS = [
  // of the run's own options, of the request, and what may be written
  { own: "temperature", sent: "temperature", min: 0, max: 2, step: 0.05, otherwise: 0.8 },
  { own: "top_p", sent: "top_p", min: 0.01, max: 1, step: 0.01, otherwise: 1 },
  { own: "max_new_tokens", sent: "max_tokens", min: 1, max: 4096, step: 1, otherwise: 256 },
];

export function writingOptions() {
  const inputs = OPTIONS.map(({ min, max, step }) => make("input", { type: "number", min, max, step, inputmode: "decimal" }));
  const seed = make("input", { type: "number", min: 0, step: 1, hint: "seed-any", inputmode: "numeric" });
  const fields = OPTIONS.map(({ own }, i) => field(`option-${own}`, inputs[i]));
  const element = fold("options", make("div", { class: "options-grid" }, ...fields, field("seed", seed)));
  return {
    element,
    takeFrom: (run) => OPTIONS.forEach(({ own, otherwise }, i) => { inputs[i].value = run.decode?.[own] ?? otherwise; }),
    values: () => {
      const given = OPTIONS.map(({ sent }, i) => [sent, inputs[i].valueAsNumber]).filter(([, value]) => !Number.isNaN(value));
      const drawn = Number.isNaN(seed.valueAsNumber) ? Math.floor(Math.random() * 2 ** 31) : seed.valueAsNumber;
      return { ...Object.fromEntries(given), seed: drawn };
    },
  };
}
