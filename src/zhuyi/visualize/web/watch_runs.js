// What is known of the runs that are watched: taken in as it comes, and made into the series of charts.

const MEASURED = ["train_loss", "valid_loss", "learning_rate", "tokens_per_second"];
const LOWER_IS_BETTER = /^(valid_loss|perplexity|bits_per_character|wer|cer|mae|rmse|mape)(_|$)/;

/** Runs by their names, in the order in which they were given. */
export function runStore() {
  let runs = [];
  return {
    list: () => runs,
    /** What there is of each already, as the server is to be told. */
    known: () => Object.fromEntries(runs.map(({ name, marks }) => [name, marks])),
    /** Take in what the server told; returns whether any row came or went. */
    take(news) {
      const before = new Map(runs.map((run) => [run.name, run]));
      let changed = news.runs.length !== runs.length;
      runs = news.runs.map((told, number) => {
        const run = before.get(told.name) ?? { metrics: [], samples: [], marks: {} };
        changed ||= run.number !== number;
        for (const kind of ["metrics", "samples"]) {
          const { generation, first, rows, count } = told[kind];
          const [hadGeneration, had] = run.marks[kind] ?? [-1, 0];
          if (generation === hadGeneration && first === had && !rows.length) continue;
          // Rows that are not what follows on ours are all there are.
          run[kind] = generation === hadGeneration && first === had ? [...run[kind], ...rows] : rows;
          run.marks[kind] = [generation, count];
          changed = true;
        }
        const { name, task, model, monitor, best, done, minutes, finished } = told;
        return Object.assign(run, { number, name, task, model, monitor, best, done, minutes, finished, changedAt: told.changed });
      });
      return changed;
    },
  };
}

/** The charts that some runs fill: losses first, then each score, then rate and speed. */
export function panelsOf(runs) {
  const keys = new Set(runs.flatMap(({ metrics }) => metrics.flatMap(Object.keys)));
  const isForecast = keys.has("mae");  // its loss is no likelihood
  const scores = [...keys].filter((key) => !MEASURED.includes(key) && key !== "step" && key !== "minutes");
  const panels = [{ key: "loss", label: isForecast ? "error" : "loss", keys: ["train_loss", "valid_loss"] }];
  panels.push(...scores.map((key) => ({ key, label: null, keys: [key] })));
  panels.push(...["learning_rate", "tokens_per_second"].map((key) => ({ key, label: key, keys: [key] })));
  return panels.filter((panel) => panel.keys.some((key) => keys.has(key)));
}

/** The series of one chart. `along` is "step" or "minutes"; names are told by `named(run, key)`. */
export function seriesOf(panel, runs, along, named) {
  return runs.flatMap((run) => panel.keys.map((key) => ({
    name: named(run, key),
    colour: run.number,
    dashed: key === "train_loss",
    points: run.metrics.filter((row) => key in row).map((row) => [row[along], row[key]]),
  })).filter(({ points }) => points.length));
}

/** The run's newest and best values of the score by which its best weights are chosen. */
export function watchedScore(run) {
  const key = run.monitor === "loss" || !run.monitor ? "valid_loss" : run.monitor;
  const rows = run.metrics.filter((row) => Number.isFinite(row[key]));
  if (!rows.length) return null;
  const better = LOWER_IS_BETTER.test(key) ? (a, b) => a < b : (a, b) => a > b;
  const found = rows.find((row) => row.step === run.best) ?? rows.reduce((best, row) => (better(row[key], best[key]) ? row : best));
  return { key, newest: rows.at(-1)[key], best: found[key], step: found.step };
}

/** How the run stands, and how many seconds it will still take if it goes on as it has: nobody knows that of a run that
 *  has long told nothing, nor in a file (`live` is false) that will be read later. */
export function standing(run, now, live = true) {
  const silence = Math.max(0, now - run.changedAt);
  if (run.finished) return { state: "finished", silence };
  const minutes = run.metrics.map((row) => row.minutes).filter(Number.isFinite);
  if (!minutes.length) return { state: run.changedAt ? "training" : "begins", silence };
  const apart = 60 * Math.max(...minutes.map((each, i) => each - (minutes[i - 1] ?? 0)));
  if (silence > Math.max(60, 3 * apart)) return { state: "quiet", silence };
  if (!live) return { state: "unfinished", silence };
  const left = run.done > 0 ? Math.max(0, (60 * run.minutes * (1 - run.done)) / run.done - silence) : null;
  return { state: "training", silence, left };
}

/** The pieces of a text, each with whether it is part of the longest common subsequence with another text. */
export function agreement(text, other) {
  const cut = (whole) => whole.match(/\p{Script=Han}|[\p{L}\p{N}'’]+|\s+|[^]/gu) ?? [];
  const [ours, theirs] = [cut(text), cut(other)];
  const width = theirs.length + 1;
  const longest = new Uint16Array((ours.length + 1) * width);
  for (let i = ours.length - 1; i >= 0; i--) {
    for (let j = theirs.length - 1; j >= 0; j--) {
      longest[i * width + j] = ours[i] === theirs[j]
        ? longest[(i + 1) * width + j + 1] + 1
        : Math.max(longest[(i + 1) * width + j], longest[i * width + j + 1]);
    }
  }
  const pieces = [];
  for (let i = 0, j = 0; i < ours.length;) {
    if (j < theirs.length && ours[i] === theirs[j]) {
      pieces.push([ours[i++], true]);
      j++;
    } else if (j === theirs.length || longest[(i + 1) * width + j] >= longest[i * width + j + 1]) {
      pieces.push([ours[i++], false]);
    } else {
      j++;
    }
  }
  return pieces;
}
