// One of several, as a group of radio buttons that look like chips.

let groups = 0;

// `options` is [[value, label], ...]; returns the fieldset, filled anew by `set`.
export function radioChoice(onPick) {
  const group = document.createElement("fieldset");
  const legend = group.appendChild(document.createElement("legend"));
  const list = group.appendChild(document.createElement("div"));
  list.className = "options";
  const name = `choice-${groups++}`;  // radio buttons belong together by a name that is the document's
  let values = [];

  function option([value, label], index, chosen) {
    const choice = document.createElement("label");
    const input = choice.appendChild(document.createElement("input"));
    Object.assign(input, { type: "radio", name, value: String(value), checked: value === chosen });
    input.addEventListener("change", () => onPick(values[index]));
    choice.appendChild(document.createElement("span")).textContent = label;
    return choice;
  }

  return {
    element: group,
    set(title, options, chosen, { disabled = false } = {}) {
      const hadFocus = list.contains(document.activeElement);
      legend.textContent = title;
      values = options.map(([value]) => value);
      list.replaceChildren(...options.map((each, index) => option(each, index, chosen)));
      for (const input of list.querySelectorAll("input")) input.disabled = disabled;
      if (hadFocus) list.querySelector("input:checked")?.focus();
    },
  };
}
