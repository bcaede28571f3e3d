/** One text that a model says: the request, what came of it, and what was measured. */

import { PCM_RATE_HZ, empty, playbackOf } from "./playback.js";
import { joined, readHeader, waveFile } from "./wave_file.js";

export const PATH = "/v1/audio/speech";

export class Utterance {
  /** `recordings` is what the files are called that `ref_audio` and `source_audio` were read from. */
  constructor(body, { recordings = {} } = {}) {
    this.body = body;
    this.recordings = recordings;
    this.state = "waiting"; // then "coming", and one of "complete", "stopped" and "failed"
    this.error = null;
    this.playError = null;
    this.unsupported = "";
    this.ignored = "";
    this.bytes = 0;
    this.firstSeconds = null;
    this.totalSeconds = null;
    this.file = null;
    this.sound = null;
    this.aborter = new AbortController();
  }

  get format() {
    return this.body.response_format;
  }

  /** True if it can be stopped. */
  get isSpeaking() {
    return this.totalSeconds === null || this.playback?.isSounding === true;
  }

  /** Name of the downloaded file. */
  get fileName() {
    return `${this.body.model.replace(/[^\w.-]+/g, "-")}.${this.format}`;
  }

  stop() {
    this.aborter.abort();
    this.playback?.stop();
  }

  /** Have it said and heard. `changed` is called whenever something is different. */
  async speak(api, audio, changed) {
    const begun = performance.now();
    const since = () => (performance.now() - begun) / 1000;
    const pieces = [];
    empty(audio); // what was said before is not what this request gives, also if it fails
    try {
      const reply = await api.request("POST", PATH, this.body, { signal: this.aborter.signal });
      this.unsupported = reply.headers.get("x-unsupported-params") ?? "";
      this.ignored = reply.headers.get("x-ignored-params") ?? "";
      this.playback = playbackOf(this.format, audio, { changed, failed: (error) => this.notPlayed(error, changed) });
      for await (const piece of piecesOf(reply.body)) {
        this.firstSeconds ??= since();
        this.state = "coming";
        this.bytes += piece.length;
        pieces.push(piece);
        this.playback.take(piece);
        changed();
      }
      this.state = "complete";
    } catch (error) {
      this.state = this.aborter.signal.aborted ? "stopped" : "failed";
      this.error = this.aborter.signal.aborted ? null : brokenOff(error, pieces);
    }
    this.totalSeconds = since();
    changed();
    if (pieces.length > 0) {
      await this.keep(joined(pieces));
    }
    changed();
  }

  notPlayed(error, changed) {
    this.playError ??= error;
    changed();
  }

  /** Received audio, as a file to download and as samples to draw. */
  async keep(all) {
    await this.playback.finish();
    this.file = fileOf(all, this.format);
    try {
      this.sound = await decoded(this.format === "pcm" ? waveFile(all, PCM_RATE_HZ) : this.file);
    } catch (error) {
      this.playError ??= error;
    }
  }
}

async function* piecesOf(body) {
  const reader = body.getReader();
  try {
    for (;;) {
      const { value, done } = await reader.read();
      if (done) {
        return;
      }
      yield value;
    }
  } finally {
    reader.cancel().catch(() => {});
  }
}

/** A browser says "network error" where the server broke a file off. */
function brokenOff(error, pieces) {
  return pieces.length === 0 || error.name === "ApiError"
    ? error
    : new Error("The connection was closed before the audio was complete. The server's log gives the reason.");
}

function fileOf(all, format) {
  const header = format === "wav" ? readHeader(all) : null;
  return header === null ? new Blob([all]) : waveFile(all.subarray(header.offset), header.sampleRateHz);
}

async function decoded(file) {
  const context = new OfflineAudioContext(1, 1, 48_000);
  return await context.decodeAudioData(await file.arrayBuffer());
}
