// What all pages begin with: the language, and light or dark, as the reader chose them.

// A page that brings its Chinese along waits for it: text laid out before would keep boxes in its place, and a canvas
// does not draw again by itself.
await document.fonts.load('16px "page Chinese"', "看").catch(() => null);

// Choices are kept where the browser allows it.
function recall(key) {
  try {
    return localStorage.getItem(`zhuyi.${key}`);
  } catch {
    return null;  // a page from disk may have no storage
  }
}

function keep(key, value) {
  try {
    localStorage.setItem(`zhuyi.${key}`, value);
  } catch { /* then it holds for this visit */ }
}

function choice(key, options, preferred, apply) {
  let value = options.includes(recall(key)) ? recall(key) : preferred;
  const listeners = new Set();
  apply(value);
  return {
    current: () => value,
    choose(wanted) {
      if (!options.includes(wanted)) throw new RangeError(`${key} is ${wanted}; it must be one of ${options}`);
      value = wanted;
      keep(key, value);
      apply(value);
      for (const listener of [...listeners]) listener(value);
    },
    // Returns what ends it.
    onChange(listener) {
      listeners.add(listener);
      return () => listeners.delete(listener);
    },
  };
}

const root = document.documentElement;
const language = choice(
  "language", ["en", "zh"], (navigator.language || "en").startsWith("zh") ? "zh" : "en",
  (value) => { root.lang = value === "zh" ? "zh-CN" : "en"; },
);
export const { current, choose, onChange } = language;
export const theme = choice(
  "theme", ["light", "dark"], matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light",
  (value) => { root.dataset.theme = value; },
);

// From {en: {key: text}, zh: {...}}, a function from key to text; an entry may be a function of further arguments.
export function texts(dictionary) {
  return (key, ...values) => {
    const found = dictionary[current()][key] ?? dictionary.en[key];
    if (found === undefined) throw new Error(`there is no text ${key}`);
    return typeof found === "function" ? found(...values) : found;
  };
}

// Fills every element below (or at) `node` that has data-text="key", now and when the language changes.
export function translated(node, t) {
  const fill = () => {
    for (const each of [node, ...node.querySelectorAll("[data-text]")]) {
      if (each.dataset?.text) each.textContent = t(each.dataset.text);
    }
  };
  fill();
  return onChange(fill);
}

// Buttons of a page's header that change to the other language, and to the other light.
export function languageButton(button) {
  const name = () => {
    button.textContent = current() === "zh" ? "English" : "中文";
    button.lang = current() === "zh" ? "en" : "zh-CN";
  };
  button.addEventListener("click", () => choose(current() === "zh" ? "en" : "zh"));
  name();
  onChange(name);
}

export function themeButton(button) {
  const t = texts({ en: { light: "Light", dark: "Dark" }, zh: { light: "浅色", dark: "深色" } });
  const name = () => { button.textContent = t(theme.current() === "dark" ? "light" : "dark"); };
  button.addEventListener("click", () => theme.choose(theme.current() === "dark" ? "light" : "dark"));
  name();
  onChange(name);
  theme.onChange(name);
}
