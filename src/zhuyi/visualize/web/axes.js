// Axes of charts: what they span, where their ticks stand and how numbers are written. Pure functions.

const MINUTE = 60_000, HOUR = 60 * MINUTE, DAY = 24 * HOUR;
const TIME_STEPS = [
  MINUTE, 5 * MINUTE, 10 * MINUTE, 15 * MINUTE, 30 * MINUTE, HOUR, 2 * HOUR, 3 * HOUR, 6 * HOUR, 12 * HOUR,
  DAY, 2 * DAY, 7 * DAY, 14 * DAY, 30 * DAY, 90 * DAY, 365 * DAY,
];

/** The least and the greatest of some numbers; null of none. */
export function extent(numbers) {
  let low = Infinity, high = -Infinity;
  for (const number of numbers) {
    if (number < low) low = number;
    if (number > high) high = number;
  }
  return low <= high ? [low, high] : null;
}

/** An axis over numbers from low to high: `place` takes one to 0..1, `ticks` are [number, text]. kind: linear, log or time. */
export function axis(low, high, kind, count, roomy) {
  if (kind === "log") return logAxis(low, high, count, roomy);
  if (kind === "time") return straight(low, high, timeTicks(low, high, count));
  if (low === high) [low, high] = low === 0 ? [0, 1] : [low - Math.abs(low) / 10, high + Math.abs(high) / 10];
  const margin = roomy ? (high - low) * 0.06 : 0;
  // What is never below zero has no room there.
  const bottom = low >= 0 && low < margin ? Math.min(low, 0) : low - margin;
  return straight(bottom, high + margin, linearTicks(bottom, high + margin, count));
}

function straight(low, high, ticks) {
  const span = high - low || 1;
  return { low, high, ticks, place: (number) => (number - low) / span, number: (share) => low + share * span };
}

function logAxis(low, high, count, roomy) {
  let [bottom, top] = [Math.log10(low), Math.log10(high)];
  const margin = bottom === top ? 0.1 : roomy ? (top - bottom) * 0.06 : 0;
  [bottom, top] = [bottom - margin, top + margin];
  return {
    low: 10 ** bottom,
    high: 10 ** top,
    ticks: logTicks(bottom, top, count),
    place: (number) => (Math.log10(number) - bottom) / (top - bottom),
    number: (share) => 10 ** (bottom + share * (top - bottom)),
  };
}

/** Multiples of 1, 2 or 5 times a power of ten within low and high, about `count` of them. */
export function linearTicks(low, high, count) {
  const step = niceStep((high - low) / Math.max(1, count));
  const ticks = [];
  const first = Math.ceil(low / step - 1e-9);
  for (let i = first; i * step <= high + step * 1e-9; i++) ticks.push([i * step, written(i * step, step)]);
  return ticks;
}

/** Of 1, 2 and 5 times powers of ten the one nearest to a rough step, in proportion. */
function niceStep(rough) {
  const power = 10 ** Math.floor(Math.log10(rough));
  const distance = (n) => Math.abs(Math.log(rough / (n * power)));
  return power * [1, 2, 5, 10].reduce((best, n) => (distance(n) < distance(best) ? n : best));
}

/** Ticks of a logarithmic axis from 10^bottom to 10^top: powers of ten, 2 and 5 times them where these are few. */
export function logTicks(bottom, top, count) {
  for (const [times, every] of [[[1, 2, 3, 4, 5, 6, 7, 8, 9], 1], [[1, 2, 5], 1], [[1, 3], 1], [[1], 1], [[1], 2], [[1], 3], [[1], 6]]) {
    const ticks = [];
    for (let power = Math.floor(bottom); power <= top; power++) {
      if (power % every) continue;
      for (const n of times) {
        const place = power + Math.log10(n);
        if (place >= bottom - 1e-9 && place <= top + 1e-9) ticks.push([n * 10 ** power, written(n * 10 ** power)]);
      }
    }
    if (ticks.length > count * 1.5 + 1) continue;
    // Within less than a decade evenly spaced numbers read better than none at all.
    return ticks.length >= 2 ? ticks : linearTicks(10 ** bottom, 10 ** top, count);
  }
  return [];
}

/** Ticks at round times, UTC, within milliseconds low and high. */
export function timeTicks(low, high, count) {
  const step = TIME_STEPS.find((each) => (high - low) / each <= count) ?? TIME_STEPS.at(-1);
  const ticks = [];
  for (let at = Math.ceil(low / step) * step; at <= high; at += step) {
    const midnight = at % DAY === 0;
    ticks.push([at, midnight || step >= DAY ? writtenTime(at).slice(5, 10) : writtenTime(at).slice(11)]);
  }
  return ticks;
}

/** A time as 2024-01-31 17:05. */
export const writtenTime = (milliseconds) => new Date(milliseconds).toISOString().slice(0, 16).replace("T", " ");

/** A number with as many decimals as steps of `step` need; without a step, with four digits that count. */
export function written(number, step = 0) {
  const size = Math.abs(number);
  if (size < 1e-12) return "0";
  if (size < 1e-3 && (!step || step < 1e-3)) return Number(number.toPrecision(3)).toExponential().replace("e+", "e");
  if (size >= 1e7) return Number(number.toPrecision(4)).toExponential().replace("e+", "e");
  const decimals = step ? Math.max(0, -Math.floor(Math.log10(step) + 1e-9)) : Math.max(0, 3 - Math.floor(Math.log10(size)));
  const text = number.toLocaleString("en-US", { maximumFractionDigits: Math.min(decimals, 12) });
  return text.replace("-", "−");
}
