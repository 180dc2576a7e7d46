// The page that follows trainings: the runs, their curves, what they write and where they look.
import { adoptStyle } from "zhuyi/adopted_style.js";
import { written } from "zhuyi/axes.js";
import { lineChart } from "zhuyi/curves.js";
import { languageButton, onChange, themeButton, translated } from "zhuyi/language.js";
import { radioChoice } from "zhuyi/radio_choice.js";
import { evaluationsView } from "zhuyi/watch_evaluations.js";
import { panelsOf, runStore, seriesOf, standing, watchedScore } from "zhuyi/watch_runs.js";
import { duration, t } from "zhuyi/watch_texts.js";

const SECONDS_BETWEEN_LOOKS = 1.5;
const SECONDS_WHILE_HIDDEN = 15;

const STYLE = `
#state { color: var(--faint); font-size: .85rem; }
#watch { display: grid; gap: 1rem; grid-template-columns: minmax(0, 1fr); }
.runs { display: grid; gap: .7rem; grid-template-columns: repeat(auto-fill, minmax(min(19rem, 100%), 1fr)); }
.runs .card { border-inline-start: 4px solid var(--of-run); display: grid; gap: .2rem; align-content: start; }
.runs label { display: flex; gap: .5rem; align-items: center; font-weight: 600; overflow-wrap: anywhere; }
.runs input { accent-color: var(--accent); inline-size: 1.1rem; block-size: 1.1rem; flex: none; }
.runs .kind { color: var(--faint); font-size: .85rem; }
.runs progress { inline-size: 100%; accent-color: var(--accent); }
.runs dl { display: grid; grid-template-columns: repeat(auto-fill, minmax(6.5rem, 1fr)); gap: .2rem .8rem; margin: 0; }
.runs dt { color: var(--faint); font-size: .75rem; }
.runs dd { margin: 0; font-variant-numeric: tabular-nums; }
.charts { display: grid; gap: 1rem; grid-template-columns: repeat(auto-fill, minmax(min(24rem, 100%), 1fr)); margin-top: .6rem; }
.player { display: flex; flex-wrap: wrap; gap: .5rem; align-items: center; margin: .5rem 0; }
.player input { flex: 1 1 10rem; min-width: 6rem; accent-color: var(--accent); }
.player output { min-width: 7rem; font-variant-numeric: tabular-nums; }
.samples { display: grid; gap: .7rem; grid-template-columns: repeat(auto-fit, minmax(min(24rem, 100%), 1fr)); }
.samples dl { display: grid; grid-template-columns: max-content minmax(0, 1fr); gap: .15rem .8rem; margin: 0; align-content: start; }
.samples dt { color: var(--faint); font-size: .85rem; }
.samples dd { margin: 0; overflow-wrap: anywhere; white-space: pre-wrap; }
.samples .text u { text-decoration-color: var(--good); text-decoration-thickness: 2px; text-underline-offset: 3px; }
.history { display: grid; gap: 1rem; max-height: 24rem; overflow: auto; }
.history ol { list-style: none; margin: .3rem 0 0; padding: 0; display: grid; grid-template-columns: max-content minmax(0, 1fr); gap: .1rem .8rem; }
.history li { display: contents; overflow-wrap: anywhere; }
.history li.source { display: block; grid-column: 1 / -1; color: var(--faint); }
.history b { font-weight: normal; color: var(--faint); font-variant-numeric: tabular-nums; text-align: end; }
.looks { display: grid; gap: .5rem 1.5rem; grid-template-columns: minmax(0, 1fr); margin-top: 1.2rem; }
.looks .told { min-height: 1.5em; margin: 0; }
.looks ul { columns: 12rem; margin: .3rem 0; padding-inline-start: 1.2rem; }
#watch summary { cursor: pointer; color: var(--faint); font-size: .85rem; }
@media (min-width: 62rem) {
  .looks { grid-template-columns: minmax(0, 3fr) minmax(0, 2fr); }
  .looks > * { grid-column: 1; }
  .looks .spread { grid-column: 2; grid-row: 1 / span 6; }
}
`;

const made = (parent, tag, className = "") => {
  const element = parent.appendChild(document.createElement(tag));
  element.className = className;
  return element;
};

/** Fills the page `body`; `data` is what there is once and for all, or null: then the server is asked, again and again. */
export function watchPage(body, data) {
  adoptStyle(STYLE);
  const element = (id) => body.ownerDocument.getElementById(id);
  languageButton(element("language"));
  themeButton(element("theme"));
  translated(body, t);
  const store = runStore();
  const view = pageView(element("watch"), store, data ? () => data.now : () => Date.now() / 1000 - ahead, !data);
  let ahead = 0;  // of the reader's clock before the server's
  let reached = true;

  const sayState = () => {
    element("state").textContent = data ? t("asOf", new Date(data.now * 1000).toLocaleString()) : t(reached ? "live" : "gone");
    element("state").classList.toggle("bad", !reached);
  };

  async function look() {
    try {
      const answer = await fetch(`/news?known=${encodeURIComponent(JSON.stringify(store.known()))}`, { cache: "no-store" });
      if (!answer.ok) throw new Error(`status ${answer.status}`);
      const news = await answer.json();
      ahead = Date.now() / 1000 - news.now;
      view.draw(store.take(news));
      reached = true;
    } catch (error) {
      reached = false;
      console.info(error);
    }
    sayState();
    setTimeout(look, 1000 * (document.hidden ? SECONDS_WHILE_HIDDEN : SECONDS_BETWEEN_LOOKS));
  }

  onChange(sayState);
  onChange(() => view.draw(true));
  if (data) {
    view.draw(store.take(data));
    sayState();
  } else {
    look();
  }
}

function pageView(main, store, now, live) {
  const hidden = new Set();
  const charts = new Map();
  let along = "step", scale = "linear", looked = null;

  const section = (key) => {
    const found = made(main, "section", "card");
    found.hidden = true;
    return { element: found, title: made(found, "h2"), key };
  };
  const waiting = made(main, "p");
  const cards = made(main, "div", "runs");
  const curves = section("curves"), writes = section("writes");
  const choices = made(curves.element, "form", "choices");
  const alongChoice = radioChoice((value) => { along = value; drawCharts(); });
  const scaleChoice = radioChoice((value) => { scale = value; drawCharts(); });
  choices.append(alongChoice.element, scaleChoice.element);
  const grid = made(curves.element, "div", "charts");
  const runBar = made(writes.element, "form", "choices");
  const runChoice = radioChoice((value) => { looked = value; drawEvaluations(); });
  runBar.append(runChoice.element);
  const evaluationsBox = made(writes.element, "div");
  const evaluations = evaluationsView(evaluationsBox);
  evaluationsBox.addEventListener("evaluation", () => drawCharts());

  const shown = () => store.list().filter(({ name }) => !hidden.has(name));
  const lookedRun = () => store.list().find(({ name }) => name === looked) ?? store.list().find(({ samples }) => samples.length) ?? store.list()[0];

  function named(run, key) {
    const alone = store.list().length === 1;
    const what = key.endsWith("_loss") ? t(key) : alone ? key : "";
    return alone ? what : [run.name, what].filter(Boolean).join(" · ");
  }

  function drawCharts() {
    const runs = shown();
    const panels = panelsOf(runs);
    curves.element.hidden = !panelsOf(store.list()).length;
    for (const [key, { box, chart }] of charts) {
      if (panels.some((panel) => panel.key === key)) continue;
      chart.destroy();
      box.remove();
      charts.delete(key);
    }
    const step = evaluations.step();
    const row = lookedRun()?.metrics.find((each) => each.step === step);
    panels.forEach((panel, index) => {
      if (!charts.has(panel.key)) charts.set(panel.key, makeChart(panel.key));
      const { box, chart } = charts.get(panel.key);
      if (grid.children[index] !== box) grid.insertBefore(box, grid.children[index] ?? null);
      chart.update({
        series: seriesOf(panel, runs, along, named),
        xLabel: t(along === "step" ? "step" : "minutes"),
        yLabel: panel.label ? t(panel.label) : panel.key,
        logY: panel.key === "loss" && scale === "log",
        marks: row ? [{ x: row[along] }] : bestMark(panel, runs),
      });
    });
  }

  function bestMark(panel, runs) {
    const score = runs.length === 1 && watchedScore(runs[0]);
    if (!score || !panel.keys.includes(score.key)) return [];
    return [{ x: runs[0].metrics.find((row) => row.step === score.step)[along], name: t("best") }];
  }

  function makeChart(key) {
    const box = document.createElement("div");
    box.dataset.chart = key;
    box.addEventListener("pick", ({ detail }) => {
      const rows = lookedRun().metrics;
      const nearest = rows.reduce((best, row) => (Math.abs(row[along] - detail.x) < Math.abs(best[along] - detail.x) ? row : best), rows[0]);
      if (nearest) evaluations.goTo(nearest.step);
    });
    return { box, chart: lineChart(box, { series: [] }) };
  }

  function drawCards() {
    const several = store.list().length > 1;
    const focused = document.activeElement?.closest?.(".runs") ? document.activeElement.dataset.run : null;
    cards.replaceChildren(...store.list().map((run) => runCard(run, several)));
    if (focused) [...cards.querySelectorAll("input")].find((input) => input.dataset.run === focused)?.focus();
  }

  function runCard(run, several) {
    const card = document.createElement("div");
    card.className = "card";
    card.dataset.run = run.name;
    card.style.setProperty("--of-run", `var(--series-${(run.number % 6) + 1})`);
    const name = made(card, "label");
    if (several) {
      const box = Object.assign(made(name, "input"), { type: "checkbox", checked: !hidden.has(run.name) });
      box.dataset.run = run.name;
      box.setAttribute("aria-label", t("shown", run.name));
      box.addEventListener("change", () => { if (!hidden.delete(run.name)) hidden.add(run.name); drawCharts(); drawEvaluations(); });
    }
    name.append(run.name);
    const { state, silence, left } = standing(run, now(), live);
    made(card, "div", "kind").textContent = [run.task, run.model, t(state, duration(silence))].filter(Boolean).join(" · ");
    if (state === "training" && run.done > 0) Object.assign(made(card, "progress"), { max: 1, value: run.done }).setAttribute("aria-label", t("training"));
    const list = made(card, "dl");
    for (const [key, value] of facts(run, left)) {
      const pair = made(list, "div");
      made(pair, "dt").textContent = key;
      made(pair, "dd").textContent = value;
    }
    return card;
  }

  function facts(run, left) {
    const row = run.metrics.at(-1);
    if (!row) return [];
    const score = watchedScore(run);
    const found = [[t("step"), row.step.toLocaleString("en-US")]];
    if (Number.isFinite(row.minutes)) found.push([t("spent"), duration(60 * row.minutes)]);
    if (left !== null && left !== undefined) found.push([t("left"), t("about", duration(left))]);
    if (Number.isFinite(row.tokens_per_second)) found.push([t("speed"), t("perSecond", written(Math.round(row.tokens_per_second)))]);
    const label = (key) => (key === "valid_loss" ? t("valid_loss") : key);
    if (score) {
      found.push([`${label(score.key)}, ${t("now")}`, written(score.newest)]);
      found.push([`${label(score.key)}, ${t("best")}`, `${written(score.best)} ${t("atStep", score.step.toLocaleString("en-US"))}`]);
    }
    return found;
  }

  function drawEvaluations() {
    const runs = store.list();
    const run = lookedRun();
    writes.element.hidden = !runs.some(({ metrics }) => metrics.length);
    runBar.hidden = runs.length < 2;
    runChoice.set(t("run"), runs.map(({ name }) => [name, name]), run?.name);
    if (run) evaluations.show(run, shown());
  }

  return {
    /** Draw what changes with time, and where rows have come or gone, or words changed, all else. */
    draw(changed) {
      waiting.hidden = store.list().some(({ metrics }) => metrics.length);
      waiting.textContent = t("waiting");
      drawCards();
      if (!changed) return;
      for (const { title, key } of [curves, writes]) title.textContent = t(key);
      alongChoice.set(t("across"), [["step", t("steps")], ["minutes", t("minutes")]], along);
      scaleChoice.set(t("scale"), [["linear", t("linear")], ["log", t("log")]], scale);
      drawEvaluations();
      drawCharts();
    },
  };
}
