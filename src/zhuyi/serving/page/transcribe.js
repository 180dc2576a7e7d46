/** What is said in a recording that is dropped, chosen or made here: its text with times, to hear, copy and keep. */

import { newestOnly, runChoice, statusLine } from "zhuyi/asking.js";
import { dropPlace } from "zhuyi/dropped.js";
import { button, field, make, save } from "zhuyi/elements.js";
import { flagList } from "zhuyi/flags.js";
import { ask } from "zhuyi/server.js";
import { drawWaves, fileToSend, record, unpack } from "zhuyi/sound.js";
import { asSrt, asVtt, shortTime } from "zhuyi/subtitles.js";
import { say } from "zhuyi/words.js";

export function build(runs) {
  const status = statusLine();
  const player = makePlayer();
  const answer = make("div", { class: "card", role: "region", label: "transcription", "aria-live": "polite", hidden: true });
  const language = make("select");
  const languageField = field("spoken-language", language);
  const choice = runChoice(runs, (run) => {
    const codes = run.languages ?? [];
    languageField.hidden = codes.length < 2;
    language.replaceChildren(make("option", { value: "auto", text: "language-auto" }), ...codes.map((code) => make("option", { value: code }, code)));
  });

  const transcribe = newestOnly(async (signal, blob, name) => {
    answer.hidden = true;
    status.busy("listening");
    const samples = await unpack(blob).catch(() => null); // what the browser cannot read the server may
    player.load(blob, samples);
    const file = fileToSend(blob, name, samples);
    const form = new FormData();
    form.append("model", choice.chosen().id);
    form.append("file", file.blob, file.name);
    form.append("response_format", "verbose_json");
    if (!languageField.hidden && language.value !== "auto") form.append("language", language.value);
    const found = await ask("v1/audio/transcriptions", { form, signal, onwait: status.waits });
    status.clear();
    answer.hidden = false;
    answer.replaceChildren(...text(found, name.replace(/\.[^.]*$/, ""), player));
  }, status);

  choice.choose(runs[0]);
  return make("div", { class: "stack narrow" },
    make("div", { class: "card" }, choice.element, languageField,
      dropPlace(([sound]) => transcribe(sound, sound.name), { accept: "audio/*,.flac,.opus,.wav", button: "sound-choose", hint: "sound-drop" }),
      recordButton(status, transcribe), status.element),
    player.element, answer);
}

function text(found, name, player) {
  const segments = found.segments ?? [];
  const item = (segment) => make("li", {},
    button("", () => player.playFrom(segment.start), { class: "time", label: ["play-from", shortTime(segment.start)] }),
    make("span", {}, segment.text), flagList(segment.flags));
  const list = make("ol", { class: "segments" }, ...segments.map(item));
  segments.forEach(({ start, end }, i) => { list.children[i].firstChild.textContent = `${shortTime(start)}–${shortTime(end)}`; });
  const files = [["txt", () => `${found.text}\n`, "text/plain"], ["srt", () => asSrt(segments), "application/x-subrip"], ["vtt", () => asVtt(segments), "text/vtt"]];
  return [
    make("p", { class: "text" }, found.text, found.text ? null : make("span", { class: "faint", text: "nothing-said" })), list,
    make("div", { class: "row" }, ...files.map(([ending, content, type]) => button(["keep-as", ending], () => save(`${name}.${ending}`, content(), type)))),
  ];
}

function makePlayer() {
  const waves = make("canvas", { width: 800, height: 72, class: "waves", role: "img", label: "waves" });
  const audio = make("audio", { controls: true, label: "recording" });
  const element = make("div", { class: "card", hidden: true }, waves, audio);
  let samples = null;
  const draw = () => samples && drawWaves(waves, samples, audio.duration ? audio.currentTime / audio.duration : 0);
  audio.addEventListener("timeupdate", draw);
  waves.addEventListener("click", (event) => {
    if (Number.isFinite(audio.duration)) audio.currentTime = (event.offsetX / waves.clientWidth) * audio.duration;
  });
  return {
    element,
    load: (blob, unpacked) => {
      URL.revokeObjectURL(audio.src);
      audio.src = URL.createObjectURL(blob);
      samples = unpacked;
      waves.hidden = !samples;
      element.hidden = false;
      draw();
    },
    playFrom: (seconds) => {
      audio.currentTime = seconds;
      audio.play().catch(() => {}); // what the browser cannot play, it shows so
    },
  };
}

/** A button that begins a recording and ends it; who refuses the microphone is told so, and may go on with files. */
function recordButton(status, take) {
  const level = make("meter", { min: 0, max: 1, value: 0, label: "loudness", hidden: true });
  let recording = null;
  const toggle = button("record", async () => {
    if (recording) {
      const { stop } = recording;
      recording = null;
      level.hidden = true;
      say(toggle, "record");
      await take(await stop(), "recording.webm");
      return;
    }
    if (!navigator.mediaDevices?.getUserMedia || !window.MediaRecorder) return status.show("record-cannot", "error");
    try {
      recording = await record();
    } catch (error) {
      return status.show(error.name === "NotAllowedError" ? "record-refused" : "record-none", "error");
    }
    status.busy("recording-now");
    say(toggle, "record-stop");
    level.hidden = false;
    const follow = () => {
      if (!recording) return;
      level.value = recording.level();
      requestAnimationFrame(follow);
    };
    follow();
  }, { class: "record" });
  return make("div", { class: "row" }, toggle, level);
}
