/**
 * One model's conversation: what was said, the answer that is coming, and what was measured of it.
 *
 * It knows requests and streams and nothing of the page, which is told after each change by `onChange`.
 */

import { DIALECTS } from "./dialects.js";

/** A shorter answer says nothing of a model's speed. */
const MEASURABLE_TOKENS = 20;
const MEASURABLE_SECONDS = 0.2;

/** An answer of which nothing has come yet. */
function newAnswer(dialect, body) {
  return {
    role: "assistant",
    dialect,
    body,
    state: "waiting", // then "answering", and one of "complete", "stopped" and "failed"
    progress: null, // what the server is doing before the answer begins
    content: "",
    reasoning: "",
    calls: [],
    usage: null,
    finishReason: null,
    error: null,
    ignored: "",
    locked: "",
    begunAt: performance.now(),
    firstAt: null,
    thoughtFrom: null,
    thoughtUntil: null,
    endedAt: null,
  };
}

/** True if an answer has content that the next request can repeat. */
function saysSomething(turn) {
  return turn.role !== "assistant" || turn.content !== "" || turn.calls.length > 0;
}

export class Conversation {
  /** `onEnd` is called with each answer that has ended. */
  constructor(model, { api, onChange = () => {}, onEnd = () => {} }) {
    this.model = model;
    this.api = api;
    this.onChange = onChange;
    this.onEnd = onEnd;
    this.turns = [];
    this.cleared = []; // what was said before all was cleared, until something is said again
    this.running = null;
  }

  get isRunning() {
    return this.running !== null;
  }

  /** The last answer, if the conversation ends with one. */
  get lastAnswer() {
    const last = this.turns.at(-1);
    return last?.role === "assistant" ? last : null;
  }

  /** Say something and let the model answer. `settings` are {system, fields, dialect}, as dialects.js has them. */
  async say(content, settings, images = []) {
    this.turns.push({ role: "user", content, images });
    await this.answer(settings);
  }

  /** Send the results of the last answer's calls, by their ids, and let the model go on. */
  async sendResults(results, settings) {
    for (const { id, name } of this.lastAnswer.calls) {
      this.turns.push({ role: "tool", callId: id, name, content: results[id] ?? "" });
    }
    await this.answer(settings);
  }

  /** Answer the last message again. */
  async again(settings) {
    while (this.turns.at(-1)?.role === "assistant") {
      this.turns.pop();
    }
    await this.answer(settings);
  }

  /** Say something else instead of what the user said at this place, with the same images. What came after it goes. */
  async edit(at, content, settings) {
    const { images } = this.turns[at];
    this.turns.length = at;
    await this.say(content, settings, images);
  }

  clear() {
    this.stop();
    this.cleared = this.turns;
    this.turns = [];
    this.onChange();
  }

  /** Restore the cleared turns. */
  bringBack() {
    this.turns = this.cleared;
    this.cleared = [];
    this.onChange();
  }

  /** End the request; what has come stays. */
  stop() {
    this.running?.abort();
  }

  requestFor(dialect, { system, fields }) {
    return dialect.body({ model: this.model, system, turns: this.turns.filter(saysSomething), fields });
  }

  async answer(settings) {
    this.stop();
    const dialect = DIALECTS[settings.dialect];
    const answer = newAnswer(dialect, this.requestFor(dialect, settings));
    const running = new AbortController();
    this.cleared = [];
    this.turns.push(answer);
    this.running = running;
    this.onChange();
    try {
      await this.receive(answer, running.signal);
      answer.state = "complete";
    } catch (error) {
      answer.state = running.signal.aborted ? "stopped" : "failed";
      answer.error = running.signal.aborted ? null : error;
    } finally {
      answer.endedAt = performance.now();
      answer.progress = null;
      if (this.running === running) {
        this.running = null;
      }
      this.onEnd(answer);
      this.onChange();
    }
  }

  async receive(answer, signal) {
    const { path, framing, isEnd, reader } = answer.dialect;
    const read = reader();
    const chunks = this.api.stream(path, answer.body, {
      signal,
      framing,
      isEnd,
      onReply: (reply) => {
        answer.ignored = reply.headers.get("x-ignored-params") ?? "";
        answer.locked = reply.headers.get("x-locked-params") ?? "";
      },
      onComment: ({ progress }) => {
        answer.progress = progress ?? answer.progress;
        this.onChange();
      },
    });
    for await (const chunk of chunks) {
      take(answer, read(chunk));
      this.onChange();
    }
  }
}

/** Add a part, as a dialect has read it, to an answer. */
function take(answer, { reasoning, content, calls = [], usage, finishReason }) {
  const now = performance.now();
  answer.usage = usage ?? answer.usage;
  answer.finishReason = finishReason ?? answer.finishReason;
  if (reasoning || content || calls.length > 0) {
    answer.state = "answering";
    answer.progress = null;
    answer.firstAt ??= now;
  }
  if (reasoning) {
    answer.reasoning += reasoning;
    answer.thoughtFrom ??= now;
  }
  answer.content += content ?? "";
  if (answer.thoughtFrom !== null && (content || calls.length > 0)) {
    answer.thoughtUntil ??= now;
  }
  calls.forEach((call) => takeCall(answer, call));
}

function takeCall(answer, part) {
  answer.calls[part.index] ??= { id: part.id, name: "", arguments: "" };
  const call = answer.calls[part.index];
  call.name += part.name ?? "";
  call.arguments += part.arguments ?? "";
}

/** Measurements of an answer, in seconds and tokens; null if unknown. */
export function measures(answer) {
  const { begunAt, firstAt, endedAt, thoughtFrom, thoughtUntil, usage } = answer;
  const tokens = usage?.completion ?? null;
  const seconds = firstAt === null || endedAt === null ? 0 : (endedAt - firstAt) / 1000;
  const isMeasurable = tokens >= MEASURABLE_TOKENS && seconds >= MEASURABLE_SECONDS;
  return {
    firstSeconds: firstAt === null ? null : (firstAt - begunAt) / 1000,
    thoughtSeconds: ((thoughtUntil ?? endedAt ?? performance.now()) - thoughtFrom) / 1000,
    tokens,
    promptTokens: usage?.prompt ?? null,
    cachedTokens: usage?.cached ?? null,
    reasoningTokens: usage?.reasoning ?? null,
    // The first token was there when the time began.
    tokensPerSecond: isMeasurable ? (tokens - 1) / seconds : null,
  };
}
