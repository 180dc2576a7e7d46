/** Asking the server: keys, waiting where it is busy, answers that come piece by piece, and refusals. */

import { askForKey } from "zhuyi/key.js";

const KEY = "zhuyi.key";
const MOST_TRIES = 6;
const LONGEST_WAIT_S = 30;

/** The server's refusal; `status` is 0 where there was no answer at all. */
export class Refusal extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

/** The answer's JSON. `onwait(seconds)` is told where the server is busy and it is to be asked again. */
export async function ask(path, { json, form, signal, onwait } = {}) {
  const answer = await send(path, { json, form, signal, onwait });
  return read(answer.json(), answer.status);
}

/** The objects of a stream of server-sent events. */
export async function* stream(path, { json, signal, onwait } = {}) {
  const answer = await send(path, { json, signal, onwait });
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  try {
    for (;;) {
      const { done, value } = await read(reader.read(), answer.status);
      if (done) return;
      const lines = (rest + value).split(/\r?\n/);
      rest = lines.pop();
      for (const line of lines) {
        if (!line.startsWith("data:")) continue;
        const data = line.slice(5).trim();
        if (data === "[DONE]") return;
        const event = JSON.parse(data);
        if (event.error) throw new Refusal(500, messageOf(event));
        yield event;
      }
    }
  } finally {
    reader.cancel().catch(() => {});
  }
}

async function send(path, { json, form, signal, onwait }) {
  for (let tries = 1; ; tries += 1) {
    const key = sessionStorage.getItem(KEY);
    const headers = key ? { Authorization: `Bearer ${key}` } : {};
    if (json) headers["Content-Type"] = "application/json";
    const body = json ? JSON.stringify(json) : form;
    const answer = await read(fetch(path, { method: body ? "POST" : "GET", headers, body, signal }), 0);
    if (answer.ok) return answer;
    if (answer.status === 401 && tries < MOST_TRIES) {
      // Another request may have been given a key meanwhile.
      const given = sessionStorage.getItem(KEY) === key ? await askForKey(key !== null) : sessionStorage.getItem(KEY);
      if (given) {
        sessionStorage.setItem(KEY, given);
        continue;
      }
    }
    if (answer.status === 429 && tries < MOST_TRIES) {
      const seconds = Math.min(LONGEST_WAIT_S, Number(answer.headers.get("Retry-After")) || 1);
      onwait?.(seconds);
      await pause(seconds, signal);
      continue;
    }
    throw new Refusal(answer.status, messageOf(await answer.json().catch(() => ({}))));
  }
}

/** What a request brings; a line that broke becomes a refusal, but not one that was given up here. */
async function read(promise, status) {
  try {
    return await promise;
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Refusal(status && status !== 200 ? status : 0, error.message);
  }
}

function messageOf(answer) {
  const found = answer.error?.message ?? answer.error ?? answer.detail;
  return typeof found === "string" ? found : found ? JSON.stringify(found) : "";
}

function pause(seconds, signal) {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(resolve, seconds * 1000);
    signal?.addEventListener("abort", () => {
      clearTimeout(timer);
      reject(new DOMException("given up", "AbortError"));
    });
  });
}
