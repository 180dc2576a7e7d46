// Style that comes with a module. Adopted, not written into the page: a strict content policy allows no style elements.

const adopted = new Set();

export function adoptStyle(text) {
  if (adopted.has(text)) return;
  const sheet = new CSSStyleSheet();
  sheet.replaceSync(text);
  document.adoptedStyleSheets = [...document.adoptedStyleSheets, sheet];
  adopted.add(text);
}
