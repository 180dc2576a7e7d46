/** Files that are dropped, chosen or pasted. */

import { make } from "zhuyi/elements.js";

/**
 * A place for files: `take(files)` gets those that were dropped on it, chosen by its button, or, while it is shown,
 * pasted anywhere on the page.
 *
 * Args: accept: as in an input for files; words: keys of the button and of the line beneath it.
 */
export function dropPlace(take, { accept, button, hint, multiple = false }) {
  const input = make("input", { type: "file", accept, multiple, class: "only-read-aloud", label: button, onchange: () => {
    if (input.files.length) take([...input.files]);
    input.value = ""; // so that the same file may be chosen again
  } });
  const place = make("div", { class: "drop" },
    make("label", { class: "choose" }, make("span", { text: button }), input), make("p", { class: "hint", text: hint }));
  place.addEventListener("dragover", (event) => {
    event.preventDefault();
    place.classList.add("over");
  });
  place.addEventListener("dragleave", () => place.classList.remove("over"));
  place.addEventListener("drop", (event) => {
    event.preventDefault();
    place.classList.remove("over");
    if (event.dataTransfer.files.length) take([...event.dataTransfer.files]);
  });
  document.addEventListener("paste", (event) => {
    const files = [...(event.clipboardData?.files ?? [])];
    if (!files.length || !place.checkVisibility()) return;
    event.preventDefault();
    take(files);
  });
  return place;
}

// A file that misses its place must not be opened in the page's stead.
for (const name of ["dragover", "drop"]) {
  document.addEventListener(name, (event) => event.dataTransfer?.types.includes("Files") && event.preventDefault());
}
