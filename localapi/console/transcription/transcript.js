/** One file that a model writes down: the request, what came of it, and what was measured. */

import { ApiError, contentsOf } from "../api.js";

const PATH = "/v1/audio/transcriptions";
const PATH_OF_TRANSLATIONS = "/v1/audio/translations";

/** The fields of a request, without the file; what was left empty is not among them. */
export function fieldsOf(asked, model) {
  const fields = { model: model.id, response_format: asked.times ? "verbose_json" : "json", stream: "true" };
  for (const name of ["language", "prompt"]) {
    if (asked[name].trim() !== "") {
      fields[name] = asked[name].trim();
    }
  }
  return fields;
}

export class Transcript {
  constructor(fields, file, { translate = false } = {}) {
    this.fields = fields;
    this.sent = file;
    this.path = translate ? PATH_OF_TRANSLATIONS : PATH;
    this.state = "waiting"; // then "coming", and one of "complete", "stopped" and "failed"
    this.progress = null;
    this.error = null;
    this.ignored = "";
    this.text = "";
    this.segments = []; // {start, end, text}, if the times are known
    this.language = null;
    this.soundSeconds = null;
    this.firstSeconds = null;
    this.totalSeconds = null;
    this.aborter = new AbortController();
  }

  get isRunning() {
    return this.totalSeconds === null;
  }

  /** Name of a file with it. */
  fileName(ending) {
    return `${this.sent.name.replace(/\.[^.]*$/, "") || "transcript"}.${ending}`;
  }

  stop() {
    this.aborter.abort();
  }

  /** Have it written down. `changed` is called whenever something is different. */
  async write(api, changed) {
    const begun = performance.now();
    const since = () => (performance.now() - begun) / 1000;
    try {
      const reply = await api.request("POST", this.path, this.form(), { signal: this.aborter.signal });
      this.ignored = reply.headers.get("x-ignored-params") ?? "";
      for await (const content of this.contents(reply, changed)) {
        this.firstSeconds ??= since();
        this.take(content);
        changed();
      }
      this.state = "complete";
    } catch (error) {
      this.state = this.aborter.signal.aborted ? "stopped" : "failed";
      this.error = this.aborter.signal.aborted ? null : error;
    }
    this.totalSeconds = since();
    changed();
  }

  /** The model comes before the file, so that the server knows at once how large the file may be. */
  form() {
    const form = new FormData();
    Object.entries(this.fields).forEach(([name, value]) => form.append(name, value));
    form.append("file", this.sent, this.sent.name);
    return form;
  }

  /** Reply: events, or all at once from another server that does not stream. */
  async *contents(reply, changed) {
    if (!reply.headers.get("content-type")?.startsWith("text/event-stream")) {
      yield { ...(await reply.json()), type: "transcript.text.done" };
      return;
    }
    const onComment = ({ progress }) => {
      this.progress = progress ?? this.progress;
      changed();
    };
    const isEnd = ({ type }) => type === "transcript.text.done";
    yield* contentsOf(reply, { onComment, isEnd });
  }

  take(content) {
    if (content.type === "transcript.text.delta") {
      this.state = "coming";
      this.text += content.delta;
      if (content.start !== undefined) {
        this.segments.push({ start: content.start, end: content.end, text: content.delta.trim() });
      }
    } else if (content.type === "transcript.text.done") {
      if (typeof content.text !== "string") {
        throw new ApiError("The reply has no text.");
      }
      this.text = content.text;
      this.language = content.language ?? null;
      this.soundSeconds = content.duration ?? content.usage?.seconds ?? null;
      if (content.segments) {
        this.segments = content.segments.map(({ start, end, text }) => ({ start, end, text: text.trim() }));
      }
    }
  }
}
