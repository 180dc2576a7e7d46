/** A text continued as one watches. */

import { newestOnly, runChoice, statusLine } from "zhuyi/asking.js";
import { attentionPane } from "zhuyi/attention_pane.js";
import { button, field, fold, make } from "zhuyi/elements.js";
import { stream } from "zhuyi/server.js";
import { writingOptions } from "zhuyi/writing_options.js";

export function build(runs) {
  const status = statusLine();
  const options = writingOptions();
  const prompt = make("textarea", { rows: 4, hint: "generate-hint", spellcheck: "false" });
  const begun = make("span", { class: "faint" });
  const written = make("span");
  const output = make("div", { class: "text output", role: "region", label: "written", "aria-live": "polite" }, begun, written);
  const pane = attentionPane();
  const look = fold("attention-text", pane.element);
  const choice = runChoice(runs, (run) => {
    options.takeFrom(run);
    look.hidden = !run.can.includes("attention");
  });
  const start = make("button", { class: "main", text: "generate-start" });
  const stop = button("stop", () => write.abort(), { disabled: true });

  const write = newestOnly(async (signal) => {
    begun.textContent = prompt.value;
    written.textContent = "";
    working(true);
    let reason = "given-up";
    try {
      const json = { model: choice.chosen().id, prompt: prompt.value, stream: true, ...options.values() };
      for await (const event of stream("v1/completions", { json, signal, onwait: status.waits })) {
        const [piece] = event.choices ?? [];
        if (!piece) continue;
        written.append(piece.text ?? "");
        reason = piece.finish_reason ?? reason;
      }
    } finally {
      working(false);
    }
    status.show(`ended-${reason}`);
    showMaps();
  }, status);

  function working(is) {
    output.setAttribute("aria-busy", is);
    start.disabled = is;
    stop.disabled = !is;
    if (is) status.busy("writing");
    else status.show("ended-given-up");
  }
  const showMaps = () => {
    const text = begun.textContent + written.textContent;
    if (look.open && text) pane.show({ run: choice.chosen().id, text });
  };
  look.addEventListener("toggle", showMaps);
  const form = make("form", { class: "card", onsubmit: (event) => {
    event.preventDefault();
    if (!start.disabled) write();
  } },
    choice.element, field("prompt", prompt), options.element,
    make("div", { class: "row" }, start, stop), status.element);
  prompt.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) form.requestSubmit();
  });
  choice.choose(runs[0]);
  return make("div", { class: "stack", onkeydown: (event) => event.key === "Escape" && write.abort() },
    form, make("div", { class: "card" }, output), look);
}
