/** A recording from the microphone. */

/** By what the browser calls them. */
const PROBLEMS = {
  NotAllowedError: "The browser did not allow the microphone. Allow it for this page in the browser's settings.",
  SecurityError: "The browser did not allow the microphone. Allow it for this page in the browser's settings.",
  NotFoundError: "No microphone was found. Connect one.",
  NotReadableError: "The microphone cannot be read. Another program may be using it.",
};
const OR_A_FILE = " Or choose a file.";
const ENDINGS = { "audio/webm": "webm", "audio/mp4": "m4a", "audio/ogg": "ogg" };
/** Interval at which the browser delivers a recording. */
const PIECE_MS = 1000;

/** Return the reason why this page cannot use a microphone; empty if it may try. */
export function problemOfPage() {
  if (navigator.mediaDevices?.getUserMedia !== undefined && globalThis.MediaRecorder !== undefined) {
    return "";
  }
  if (!isSecureContext) {
    const { port } = location;
    return (
      "Browsers allow the microphone only on https pages and on pages of the same machine. Open this page there as " +
      `http://127.0.0.1${port ? `:${port}` : ""}, or choose a file, such as one recorded on a phone.`
    );
  }
  return `This browser cannot record.${OR_A_FILE}`;
}

/** One recording. States: "asking" for leave, "recording", "ended". */
export class Recording {
  state = "asking";
  begun = null;

  /** `ended` is called once: with the file, or with null and what went wrong, if it was not given up. */
  constructor(ended) {
    this.ended = ended;
    this.pieces = [];
  }

  get seconds() {
    return this.begun === null ? 0 : (performance.now() - this.begun) / 1000;
  }

  /** Ask for the microphone and record, until `stop` is called or the microphone goes away. */
  async begin() {
    try {
      const sound = await navigator.mediaDevices.getUserMedia({ audio: true });
      this.sound = sound;
      if (this.state === "ended") {
        this.release(); // it was given up while the browser asked
        return;
      }
      this.recorder = new MediaRecorder(sound);
      this.recorder.addEventListener("dataavailable", ({ data }) => data.size > 0 && this.pieces.push(data));
      this.recorder.addEventListener("stop", () => this.finish());
      this.recorder.start(PIECE_MS);
      this.begun = performance.now();
      this.state = "recording";
    } catch (error) {
      this.give(null, new Error((PROBLEMS[error.name] ?? `The microphone does not work: ${error.message}.`) + OR_A_FILE));
    }
  }

  stop() {
    if (this.state === "asking") {
      this.give(null, null);
    } else if (this.recorder.state !== "inactive") {
      this.recorder.stop();
    }
  }

  finish() {
    const type = this.recorder.mimeType.split(";")[0];
    const name = `recording.${ENDINGS[type] ?? "webm"}`;
    this.give(this.pieces.length > 0 ? new File(this.pieces, name, { type }) : null, null);
  }

  give(file, problem) {
    if (this.state !== "ended") {
      this.state = "ended";
      this.release();
      this.ended(file, problem);
    }
  }

  release() {
    this.sound?.getTracks().forEach((track) => track.stop());
  }
}
