/** A conversation, its answers shown as they are written. */

import { newestOnly, runChoice, statusLine } from "zhuyi/asking.js";
import { button, composes, field, make } from "zhuyi/elements.js";
import { stream } from "zhuyi/server.js";
import { writingOptions } from "zhuyi/writing_options.js";

export function build(runs) {
  const status = statusLine();
  const options = writingOptions();
  let turns = []; // what the server is to know of: {role, content}
  const log = make("ol", { class: "talk", role: "log", label: "conversation", tabindex: 0 });
  const question = make("textarea", { rows: 2, hint: "chat-hint", spellcheck: "false" });
  const choice = runChoice(runs, (run) => options.takeFrom(run));
  const send = make("button", { class: "main", text: "chat-send" });
  const stop = button("stop", () => answer.abort(), { disabled: true });

  const answer = newestOnly(async (signal, text) => {
    const before = turns;
    const asked = said("you", text);
    const answered = said("model", "");
    const place = answered.lastChild;
    question.value = "";
    working(answered, true);
    try {
      const json = { model: choice.chosen().id, messages: [...before, { role: "user", content: text }], stream: true, ...options.values() };
      for await (const event of stream("v1/chat/completions", { json, signal, onwait: status.waits })) {
        place.append(event.choices?.[0]?.delta?.content ?? "");
        log.scrollTop = log.scrollHeight;
      }
    } finally {
      working(answered, false);
      if (!place.textContent) { // a question without an answer is taken back
        asked.remove();
        answered.remove();
        question.value ||= text;
      } else if (turns === before) {
        turns = [...before, { role: "user", content: text }, { role: "assistant", content: place.textContent }];
      }
    }
  }, status);

  function said(who, text) {
    const item = make("li", { class: who }, make("span", { class: "who", text: `chat-${who}` }), make("p", {}, text));
    log.append(item);
    log.scrollTop = log.scrollHeight;
    return item;
  }
  function working(item, is) {
    item.setAttribute("aria-busy", is);
    send.disabled = is;
    stop.disabled = !is;
    if (is) status.busy("writing");
    else status.clear();
  }
  const form = make("form", { class: "card", onsubmit: (event) => {
    event.preventDefault();
    if (question.value.trim() && !send.disabled) answer(question.value.trim());
  } }, choice.element, field("chat-question", question),
  make("div", { class: "row" }, send, stop, button("chat-anew", () => {
    answer.abort();
    turns = [];
    log.replaceChildren();
    question.value = "";
    question.focus();
  })), options.element, status.element);
  question.addEventListener("keydown", (event) => {
    if (event.key !== "Enter" || event.shiftKey || composes(event)) return;
    event.preventDefault();
    form.requestSubmit();
  });
  choice.choose(runs[0]);
  return make("div", { class: "stack narrow", onkeydown: (event) => event.key === "Escape" && answer.abort() }, log, form);
}
