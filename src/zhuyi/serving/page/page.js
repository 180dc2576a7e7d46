/** The page: asks what is loaded, and has a room for each thing that can be done with it. */

import { build as alike } from "zhuyi/alike.js";
import { statusLine } from "zhuyi/asking.js";
import { build as chat } from "zhuyi/chat.js";
import { build as couplets } from "zhuyi/couplets.js";
import { button, make } from "zhuyi/elements.js";
import { build as fill } from "zhuyi/fill.js";
import { build as forecast } from "zhuyi/forecast.js";
import { build as generate } from "zhuyi/generate.js";
import { build as label } from "zhuyi/label.js";
import { languageButton, onChange, themeButton } from "zhuyi/language.js";
import { build as picture } from "zhuyi/picture.js";
import { ask } from "zhuyi/server.js";
import { build as transcribe } from "zhuyi/transcribe.js";
import { build as translate } from "zhuyi/translate.js";
import { say, t } from "zhuyi/words.js";

const isCouplets = (run) => run.constraint === "couplet";
const isPictures = (run) => run.task === "image-classification";

// In the order of the page: each room's name, which runs it is for, and who builds it.
const ROOMS = [
  { name: "translate", has: (run) => run.can.includes("translate") && !isCouplets(run), build: translate },
  { name: "couplets", has: (run) => run.can.includes("translate") && isCouplets(run), build: couplets },
  { name: "chat", has: (run) => run.can.includes("chat"), build: chat },
  { name: "generate", has: (run) => run.can.includes("generate"), build: generate },
  { name: "fill", has: (run) => run.can.includes("fill"), build: fill },
  { name: "label", has: (run) => run.can.includes("classify") && !isPictures(run), build: label },
  { name: "alike", has: (run) => run.can.includes("embed"), build: alike },
  { name: "picture", has: (run) => run.can.includes("classify") && isPictures(run), build: picture },
  { name: "transcribe", has: (run) => run.can.includes("transcribe"), build: transcribe },
  { name: "forecast", has: (run) => run.can.includes("forecast"), build: forecast },
];

// Where a text box that has the focus brings up no keyboard on the screen.
const HAS_KEYS = matchMedia("(hover: hover) and (pointer: fine)");

// Chromium keeps the boxes that it drew for Chinese before the font was there: another font setting draws them anew.
let drawn = 0;
const drawAnew = () => { document.body.style.fontFeatureSettings = `"kern" ${(drawn += 1)}`; };
document.fonts.addEventListener("loadingdone", drawAnew);
document.fonts.ready.then(drawAnew);

const main = document.getElementById("main");
const tasks = document.getElementById("tasks");
say(tasks, "tasks", "label");
say(document.querySelector(".skip"), "skip");
document.getElementById("switches").append(headerButton(languageButton), headerButton(themeButton));

document.getElementById("foot").append(make("a", { href: "docs", text: "for-programs" }));

function headerButton(fit) {
  const made = make("button", { type: "button" });
  fit(made);
  return made;
}

async function begin() {
  const status = statusLine();
  main.replaceChildren(status.element);
  status.busy("beginning");
  try {
    const { runs } = await ask("v1/runs", { onwait: status.waits });
    const rooms = ROOMS.map((room) => ({ ...room, runs: runs.filter(room.has) })).filter((room) => room.runs.length);
    if (!rooms.length) return status.show("nothing-loaded");
    open(rooms);
  } catch (error) {
    status.failed(error);
    main.append(button("try-again", begin));
  }
}

function open(rooms) {
  tasks.replaceChildren(...rooms.map(({ name }) => make("a", { href: `#${name}`, text: `task-${name}` })));
  const built = new Map();
  const enter = (moves) => {
    const asked = location.hash.slice(1);
    const room = rooms.find(({ name }) => name === asked) ?? rooms[0];
    if (!built.has(room.name)) {
      // Shown before it is filled: what is hidden has no size to draw in.
      const section = make("section", { id: `room-${room.name}`, class: "room", label: `task-${room.name}` });
      built.set(room.name, section);
      main.append(section);
      section.append(make("h2", { text: `title-${room.name}` }), room.build(room.runs));
    }
    for (const [name, section] of built) section.hidden = name !== room.name;
    for (const link of tasks.children) {
      if (link.hash === `#${room.name}`) link.setAttribute("aria-current", "page");
      else link.removeAttribute("aria-current");
    }
    const name = () => { document.title = `${t(`task-${room.name}`)} · 注意 zhuyi`; };
    name();
    renamed = name;
    if (moves) main.focus({ preventScroll: true });
    else if (HAS_KEYS.matches) built.get(room.name).querySelector("textarea, input[type=text]")?.focus({ preventScroll: true });
  };
  let renamed = () => {};
  onChange(() => renamed());
  main.replaceChildren();
  window.addEventListener("hashchange", () => enter(true));
  enter(false);
}

begin();
