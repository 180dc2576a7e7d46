/** A picture to a label: dropped, chosen, pasted or drawn; and where the model looked in it. */

import { newestOnly, runChoice, statusLine } from "zhuyi/asking.js";
import { drawingPlace } from "zhuyi/drawing.js";
import { dropPlace } from "zhuyi/dropped.js";
import { bars, make, percent } from "zhuyi/elements.js";
import { overlayView } from "zhuyi/overlay.js";
import { ask } from "zhuyi/server.js";

export function build(runs) {
  const status = statusLine();
  const verdict = make("p", { class: "verdict" });
  const shares = make("div");
  const overlay = overlayView();
  const answer = make("div", { class: "card", role: "region", label: "picture-answer", "aria-live": "polite", hidden: true }, verdict, shares);
  let newest = null;
  const choice = runChoice(runs, () => newest && classify(newest));

  const classify = newestOnly(async (signal, picture) => {
    newest = picture;
    status.busy("thinking");
    const form = new FormData();
    form.append("run", choice.chosen().id);
    form.append("file", picture, picture.name ?? "drawing.png");
    form.append("overlay", "true");
    const { classifications: [found] } = await ask("v1/classify", { form, signal, onwait: status.waits });
    status.clear();
    answer.hidden = false;
    verdict.replaceChildren(make("strong", {}, found.label), ` ${percent(found.probability)}`);
    shares.replaceChildren(bars(Object.entries(found.probabilities)));
    if (found.overlay) overlay.show(found.overlay);
  }, status);

  const wiped = () => {
    classify.abort();
    newest = null;
    answer.hidden = true;
    overlay.clear();
    status.clear();
  };
  return make("div", { class: "pictures" },
    make("div", { class: "card" }, choice.element,
      dropPlace(([picture]) => classify(picture), { accept: "image/*", button: "picture-choose", hint: "picture-drop" }),
      drawingPlace((picture) => (picture ? classify(picture) : wiped())), status.element),
    answer, overlay.element);
}
