/** Subtitles of segments {start, end, text}: the files that `zhuyi transcribe --format` writes. */

function clock(seconds, point) {
  const all = Math.round(seconds * 1000);
  const two = (number) => String(Math.floor(number)).padStart(2, "0");
  return `${two(all / 3_600_000)}:${two(all / 60_000 % 60)}:${two(all / 1000 % 60)}${point}${String(all % 1000).padStart(3, "0")}`;
}

export const asSrt = (segments) => segments
  .map(({ start, end, text }, i) => `${i + 1}\n${clock(start, ",")} --> ${clock(end, ",")}\n${text}\n`).join("\n");

const escaped = (text) => text.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;");

export const asVtt = (segments) => ["WEBVTT\n", ...segments
  .map(({ start, end, text }) => `${clock(start, ".")} --> ${clock(end, ".")}\n${escaped(text)}\n`)].join("\n");

/** As people read it: 1:07.3. */
export const shortTime = (seconds) => `${Math.floor(seconds / 60)}:${(Math.floor(seconds % 60 * 10) / 10).toFixed(1).padStart(4, "0")}`;
