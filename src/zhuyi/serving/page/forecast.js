/** What sensors will measure: a table of what they measured of late, drawn with what is to come. */

import { newestOnly, runChoice, statusLine } from "zhuyi/asking.js";
import { lineChart } from "zhuyi/curves.js";
import { dropPlace } from "zhuyi/dropped.js";
import { button, field, fold, make, save } from "zhuyi/elements.js";
import { onChange } from "zhuyi/language.js";
import { ask } from "zhuyi/server.js";
import { say, t } from "zhuyi/words.js";

export function build(runs) {
  const status = statusLine();
  const steps = make("input", { type: "number", min: 1 });
  const start = make("input", { type: "text", hint: "forecast-start-hint" });
  const begin = make("input", { type: "text", hint: "forecast-start-hint" });
  const needs = make("p", { class: "hint" });
  const shown = resultView();
  let newest = null;
  const choice = runChoice(runs, (run) => {
    steps.max = run.forecast_steps;
    steps.value = run.forecast_steps;
    say(needs, ["forecast-needs", run.sensors.length, run.sensors.slice(0, 4).join(", "), run.history_steps, run.step_minutes]);
  });

  const forecast = newestOnly(async (signal, file) => {
    newest = file;
    status.busy("thinking");
    const form = new FormData();
    form.append("run", choice.chosen().id);
    form.append("file", file, file.name);
    for (const [name, input] of Object.entries({ steps, start, begin })) if (input.value.trim()) form.append(name, input.value.trim());
    const found = await ask("v1/forecast", { form, signal, onwait: status.waits });
    status.clear();
    shown.show(found);
  }, status);

  choice.choose(runs[0]);
  return make("div", { class: "stack" },
    make("div", { class: "card" }, choice.element, needs,
      dropPlace(([file]) => forecast(file), { accept: ".csv,.gz,.parquet,text/csv", button: "table-choose", hint: "table-drop" }),
      fold("options", make("div", { class: "options-grid" }, field("forecast-steps", steps), field("forecast-begin", begin), field("forecast-start", start)),
        button("forecast-again", () => newest && forecast(newest))), status.element),
    shown.element);
}

/** Chart, table and file of one forecast. */
function resultView() {
  const sensors = make("select", { multiple: true, size: 6, onchange: () => draw() });
  const place = make("div", { class: "chart" });
  const rows = make("div", { class: "scrolled", tabindex: 0, role: "region", label: "forecast-table" });
  const element = make("div", { class: "card stack", hidden: true },
    make("div", { class: "beside" }, field("sensors", sensors), place), fold("forecast-table", rows),
    make("div", { class: "row" }, button("forecast-keep", () => save("forecast.csv", data.csv, "text/csv"))));
  let data = null;
  let chart = null;

  function draw() {
    const chosen = [...sensors.selectedOptions].map((option) => Number(option.value));
    const options = { series: chosen.flatMap((sensor, i) => seriesOf(data, sensor, i)), times: true, xLabel: t("time"), yLabel: t("measured") };
    if (chart) chart.update(options);
    else chart = lineChart(place, options);
  }
  onChange(() => data && draw());
  return {
    element,
    show: (found) => {
      const isOther = found.sensors.join() !== data?.sensors.join();
      data = found;
      element.hidden = false;
      if (isOther) {
        sensors.replaceChildren(...found.sensors.map((name, i) => make("option", { value: i, selected: i === 0 }, name)));
      }
      draw();
      rows.replaceChildren(tableOf(found));
    },
  };
}

const milliseconds = (time) => Date.parse(`${time.replace(" ", "T")}Z`); // the place's own clocks, whatever the reader's

/** What was measured, what is to come (dashed, from the last measured point on), and what came indeed. */
function seriesOf(data, sensor, colour) {
  const name = data.sensors[sensor];
  const points = (times, values) => times.map((time, row) => [milliseconds(time), values[row][sensor]]);
  const past = points(data.history_times, data.history);
  const truth = points(data.times, data.truth).filter(([, value]) => value !== null);
  const last = past.filter(([, value]) => value !== null).slice(-1);
  return [
    { name: t("series-past", name), points: [...past, ...truth], colour },
    { name: t("series-forecast", name), points: [...last, ...points(data.times, data.values)], colour, dashed: true },
  ];
}

function tableOf(data) {
  const head = make("tr", {}, make("th", { scope: "col", text: "time" }), ...data.sensors.map((name) => make("th", { scope: "col" }, name)));
  const rows = data.times.map((time, i) => make("tr", {}, make("th", { scope: "row" }, time),
    ...data.values[i].map((value) => make("td", { class: "number" }, value.toPrecision(4)))));
  return make("table", { class: "numbers" }, make("thead", {}, head), make("tbody", {}, ...rows));
}
