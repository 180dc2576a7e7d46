/** Asks for the server's API key, once for however many requests want one. */

import { button, field, make } from "zhuyi/elements.js";

let asking = null;

/** The key, or null where the reader gives none; `wasRefused` tells that one was given before. */
export function askForKey(wasRefused) {
  asking ??= show(wasRefused).finally(() => { asking = null; });
  return asking;
}

function show(wasRefused) {
  const input = make("input", { type: "password", autocomplete: "off", required: true, spellcheck: "false" });
  const form = make("form", { method: "dialog" },
    make("h2", { text: "key-title" }),
    make("p", { text: wasRefused ? "key-refused" : "key-why" }),
    field("key-name", input),
    make("div", { class: "row" },
      make("button", { class: "main", value: "given", text: "key-use" }),
      button("cancel", () => dialog.close(""))));
  const dialog = make("dialog", { label: "key-title" }, form);
  document.body.append(dialog);
  dialog.showModal();
  return new Promise((resolve) => {
    dialog.addEventListener("close", () => {
      dialog.remove();
      resolve(dialog.returnValue === "given" ? input.value.trim() : null);
    });
  });
}
