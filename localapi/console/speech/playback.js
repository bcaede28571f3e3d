/**
 * Three ways to hear a file that is still being made, for an <audio> element:
 *
 *   MediaSourcePlayback  the browser decodes it as it comes: MP3 and AAC, where it can
 *   SamplesPlayback      samples go to the loudspeakers as they come: WAV and PCM
 *   WholePlayback        the rest is heard when it is complete
 *
 * Each has take(bytes), finish() and stop(). finish() leaves the element with something that can be played again.
 * `isSounding` is whether there is sound that the element knows nothing of. `failed` is told what the browser could not
 * do, and `changed` that `isSounding` is different.
 */

import { joined, readHeader, waveFile } from "./wave_file.js";

const MEDIA_TYPES = { mp3: "audio/mpeg", aac: "audio/aac" };
export const PCM_RATE_HZ = 24_000;
const START_SECONDS = 0.08; // of silence, so that the first pieces do not come too late

/** Return how this browser plays a format: "media-source", "samples" or "whole". */
export function wayOf(format) {
  if (format in MEDIA_TYPES && globalThis.MediaSource?.isTypeSupported(MEDIA_TYPES[format])) {
    return "media-source";
  }
  return format === "wav" || format === "pcm" ? "samples" : "whole";
}

/** The playback of one file. */
export function playbackOf(format, audio, { failed, changed }) {
  switch (wayOf(format)) {
    case "media-source":
      return new MediaSourcePlayback(audio, MEDIA_TYPES[format], failed);
    case "samples":
      return new SamplesPlayback(audio, format === "pcm" ? PCM_RATE_HZ : null, { failed, changed });
    default:
      return new WholePlayback(audio, failed);
  }
}

/** Let the element have nothing to play. */
export function empty(audio) {
  audio.pause();
  const before = audio.src;
  audio.removeAttribute("src");
  audio.load();
  if (before.startsWith("blob:")) {
    URL.revokeObjectURL(before);
  }
}

/** Let the element play something else, and forget what it played before. */
function useSource(audio, content) {
  const before = audio.src;
  audio.src = URL.createObjectURL(content);
  if (before.startsWith("blob:")) {
    URL.revokeObjectURL(before);
  }
}

async function play(audio, failed) {
  try {
    await audio.play();
  } catch (error) {
    if (error.name !== "AbortError") {
      failed(error);
    }
  }
}

class MediaSourcePlayback {
  isSounding = false;

  constructor(audio, type, failed) {
    this.audio = audio;
    this.failed = failed;
    this.waiting = [];
    this.isComplete = false;
    this.source = new MediaSource();
    this.ended = new Promise((resolve) => {
      this.source.addEventListener("sourceended", resolve);
      this.source.addEventListener("sourceclose", resolve); // the element plays something else now
    });
    this.source.addEventListener("sourceopen", () => this.open(type), { once: true });
    useSource(audio, this.source);
    play(audio, failed);
  }

  open(type) {
    this.buffer = this.source.addSourceBuffer(type);
    this.buffer.addEventListener("updateend", () => this.pump());
    this.buffer.addEventListener("error", () => this.failed(new Error("it cannot decode the data.")));
    this.pump();
  }

  pump() {
    if (this.buffer === undefined || this.buffer.updating || this.source.readyState !== "open") {
      return;
    }
    if (this.waiting.length > 0) {
      this.buffer.appendBuffer(joined(this.waiting.splice(0)));
    } else if (this.isComplete) {
      this.source.endOfStream();
    }
  }

  take(bytes) {
    this.waiting.push(bytes);
    this.pump();
  }

  async finish() {
    this.isComplete = true;
    this.pump();
    await this.ended;
  }

  stop() {
    this.audio.pause();
  }
}

class SamplesPlayback {
  isSounding = false;

  constructor(audio, sampleRateHz, { failed, changed }) {
    this.audio = audio;
    this.changed = changed;
    this.sampleRateHz = sampleRateHz;
    this.samples = [];
    this.rest = new Uint8Array();
    this.next = 0;
    this.context = new AudioContext();
    this.context.resume().catch(failed);
  }

  take(bytes) {
    this.rest = joined([this.rest, bytes]);
    if (this.sampleRateHz === null) {
      const header = readHeader(this.rest);
      if (header === null) {
        return;
      }
      this.sampleRateHz = header.sampleRateHz;
      this.rest = this.rest.slice(header.offset);
    }
    const length = this.rest.length & ~1; // a sample is two bytes
    if (length > 0) {
      this.samples.push(this.rest.subarray(0, length));
      this.sound(new DataView(this.rest.buffer, this.rest.byteOffset, length));
      this.rest = this.rest.slice(length);
    }
  }

  /** Have these samples heard after those before them. */
  sound(view) {
    if (this.context.state === "closed") {
      return;
    }
    const buffer = this.context.createBuffer(1, view.byteLength / 2, this.sampleRateHz);
    const channel = buffer.getChannelData(0);
    for (let index = 0; index < channel.length; index += 1) {
      channel[index] = view.getInt16(index * 2, true) / 32_768;
    }
    const node = new AudioBufferSourceNode(this.context, { buffer });
    node.connect(this.context.destination);
    node.addEventListener("ended", () => this.isComplete && node === this.last && this.stop());
    if (this.next <= this.context.currentTime) {
      this.next = this.context.currentTime + START_SECONDS; // the first, or later than what was there lasted
    }
    node.start(this.next);
    this.next += buffer.duration;
    this.last = node;
    this.isSounding = true;
  }

  /** The element gets the file. Whoever starts it there does not want to hear it twice. */
  async finish() {
    this.isComplete = true;
    if (this.samples.length > 0) {
      useSource(this.audio, waveFile(joined(this.samples), this.sampleRateHz));
      this.audio.addEventListener("play", () => this.stop(), { once: true });
    }
  }

  stop() {
    if (this.context.state !== "closed") {
      this.context.close();
    }
    if (this.isSounding) {
      this.isSounding = false;
      this.changed();
    }
  }
}

class WholePlayback {
  isSounding = false;

  constructor(audio, failed) {
    this.audio = audio;
    this.failed = failed;
    this.pieces = [];
  }

  take(bytes) {
    this.pieces.push(bytes);
  }

  async finish() {
    if (this.pieces.length > 0 && !this.isStopped) {
      useSource(this.audio, new Blob(this.pieces));
      play(this.audio, this.failed);
    }
  }

  stop() {
    this.isStopped = true;
    this.audio.pause();
  }
}
