/** Sound in the browser: unpacked, as a WAV that the server reads, as a picture of its waves, and recorded. */

const RATE_HZ = 16_000;
// What the server's library reads as it is; whatever else the browser can unpack is sent as a WAV.
const READ_BY_SERVER = /\.(wav|flac|ogg|oga|opus|mp3|aiff?|au|caf)$/i;

/** One channel of samples at 16,000 a second. */
export async function unpack(blob) {
  const context = new OfflineAudioContext(1, 1, RATE_HZ);
  const sound = await context.decodeAudioData(await blob.arrayBuffer()); // at the context's rate
  const samples = new Float32Array(sound.length);
  for (let channel = 0; channel < sound.numberOfChannels; channel += 1) {
    sound.getChannelData(channel).forEach((value, i) => { samples[i] += value / sound.numberOfChannels; });
  }
  return samples;
}

/** The file to send: the reader's own where the server can read it. */
export function fileToSend(blob, name, samples) {
  if (READ_BY_SERVER.test(name) || !samples) return { blob, name };
  return { blob: wav(samples), name: `${name.replace(/\.[^.]*$/, "")}.wav` };
}

/** A WAV of 16 bits a sample. */
export function wav(samples) {
  const bytes = new DataView(new ArrayBuffer(44 + samples.length * 2));
  const word = (at, text) => [...text].forEach((letter, i) => bytes.setUint8(at + i, letter.charCodeAt(0)));
  word(0, "RIFF");
  bytes.setUint32(4, 36 + samples.length * 2, true);
  word(8, "WAVEfmt ");
  bytes.setUint32(16, 16, true); // the length of what follows: plain numbers, one channel
  bytes.setUint16(20, 1, true);
  bytes.setUint16(22, 1, true);
  bytes.setUint32(24, RATE_HZ, true);
  bytes.setUint32(28, RATE_HZ * 2, true);
  bytes.setUint16(32, 2, true);
  bytes.setUint16(34, 16, true);
  word(36, "data");
  bytes.setUint32(40, samples.length * 2, true);
  samples.forEach((value, i) => bytes.setInt16(44 + i * 2, Math.max(-1, Math.min(1, value)) * 32767, true));
  return new Blob([bytes], { type: "audio/wav" });
}

/** Draw the waves, a column a pixel, what was played already in full colour. */
export function drawWaves(canvas, samples, played = 0) {
  const brush = canvas.getContext("2d");
  const { width, height } = canvas;
  const look = getComputedStyle(canvas);
  brush.clearRect(0, 0, width, height);
  const each = samples.length / width;
  for (let x = 0; x < width; x += 1) {
    let most = 0;
    for (let i = Math.floor(x * each); i < (x + 1) * each; i += 1) most = Math.max(most, Math.abs(samples[i] ?? 0));
    const tall = Math.max(1, most * height * 0.95);
    brush.fillStyle = look.getPropertyValue(x < played * width ? "--accent" : "--faint");
    brush.fillRect(x, (height - tall) / 2, 1, tall);
  }
}

/** A recording under way: `stop()` gives the blob, `level()` how loud it is now, from 0 to 1. */
export async function record() {
  const microphone = await navigator.mediaDevices.getUserMedia({ audio: true });
  const context = new AudioContext();
  const analyser = context.createAnalyser();
  context.createMediaStreamSource(microphone).connect(analyser);
  const now = new Float32Array(analyser.fftSize);
  const recorder = new MediaRecorder(microphone);
  const pieces = [];
  recorder.addEventListener("dataavailable", (event) => pieces.push(event.data));
  recorder.start();
  return {
    level: () => {
      analyser.getFloatTimeDomainData(now);
      return Math.min(1, Math.max(...now.map(Math.abs)));
    },
    stop: () => new Promise((resolve) => {
      recorder.addEventListener("stop", () => {
        microphone.getTracks().forEach((track) => track.stop());
        context.close();
        resolve(new Blob(pieces, { type: recorder.mimeType }));
      });
      recorder.stop();
    }),
  };
}
