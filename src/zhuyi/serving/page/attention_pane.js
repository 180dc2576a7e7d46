/** Where a model looks, beside a text: asks for the maps once the text has settled, and shows the explorer. */

import { attentionExplorer } from "zhuyi/attention.js";
import { newestOnly, settled, statusLine } from "zhuyi/asking.js";
import { make } from "zhuyi/elements.js";
import { ask } from "zhuyi/server.js";

const SETTLED_MS = 350;

/**
 * A pane: `show(request)` asks `v1/attention` and shows the maps, `clear()` empties it.
 */
export function attentionPane() {
  const status = statusLine();
  const place = make("div", { class: "maps-place" });
  const element = make("section", { class: "attention", label: "attention" }, status.element, place);
  let explorer = null;
  let asked = "";

  const fetchMaps = newestOnly(async (signal, request) => {
    status.busy("attention-busy");
    const data = await ask("v1/attention", { json: request, signal, onwait: status.waits });
    status.clear();
    place.hidden = false;
    if (explorer) explorer.show(data);
    else explorer = attentionExplorer(place, data, {});
  }, status);
  const later = settled(fetchMaps, SETTLED_MS);

  const clear = () => {
    asked = "";
    later.cancel();
    fetchMaps.abort();
    place.hidden = true;
    status.show("attention-empty");
  };
  clear();
  return {
    element,
    clear,
    show: (request) => {
      const wanted = JSON.stringify(request);
      if (wanted === asked) return;
      asked = wanted;
      later(request);
    },
  };
}
