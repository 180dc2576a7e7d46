/** What every form needs that asks the server: which run, how it goes, and that only the newest question counts. */

import { field, make } from "zhuyi/elements.js";
import { say } from "zhuyi/words.js";

/** A choice of the run, not shown where there is one alone; `onchange(run)` is told. */
export function runChoice(runs, onchange, nameOf = (run) => run.id) {
  const select = make("select", { onchange: () => onchange(chosen()) },
    ...runs.map((run, number) => make("option", { value: number }, nameOf(run))));
  const chosen = () => runs[Number(select.value)];
  const element = field("run", select, { hidden: runs.length < 2 });
  const choose = (run) => {
    select.value = runs.indexOf(run);
    onchange(run);
  };
  return { element, chosen, choose };
}

/** A line that says how a request goes, to screen readers too. */
export function statusLine() {
  const line = make("p", { class: "status", role: "status" });
  const show = (words, kind = "") => {
    line.dataset.kind = kind;
    say(line, words);
  };
  return {
    element: line,
    show,
    clear: () => show(""),
    busy: (words) => show(words, "busy"),
    waits: (seconds) => show(["waits", seconds], "busy"),
    failed: (error) => {
      if (error.status === undefined) throw error; // a mistake of the page's own
      show(inWords(error), "error");
    },
  };
}

const WITHOUT_DETAIL = [0, 401, 429];

function inWords(refusal) {
  const known = [0, 401, 413, 429, 503].includes(refusal.status) ? `refused-${refusal.status}` : "refused";
  return [known, WITHOUT_DETAIL.includes(refusal.status) ? "" : refusal.message];
}

/**
 * Makes of `work(signal, ...)` a function of which only the newest call counts: it aborts the one before, whose answer
 * is then never shown. Refusals go to the status line.
 */
export function newestOnly(work, status) {
  let current = null;
  const run = async (...values) => {
    current?.abort();
    const own = new AbortController();
    current = own;
    try {
      await work(own.signal, ...values);
    } catch (error) {
      if (error.name !== "AbortError" && current === own) status.failed(error);
    } finally {
      if (current === own) current = null;
    }
  };
  run.abort = () => current?.abort();
  return run;
}

/** Calls `work` once nothing has asked for it for so long. */
export function settled(work, milliseconds) {
  let timer = 0;
  const later = (...values) => {
    clearTimeout(timer);
    timer = setTimeout(() => work(...values), milliseconds);
  };
  later.cancel = () => clearTimeout(timer);
  return later;
}
