/**
 * One model's conversation: what was said, the answer that is coming, and what was measured of it.
 *
 * It knows requests and streams and nothing of the page, which is told after each change by `onChange`.
 */

const PATH = "/v1/chat/completions";
/** A shorter answer says nothing of a model's speed. */
const MEASURABLE_TOKENS = 20;
const MEASURABLE_SECONDS = 0.2;

/** An answer of which nothing has come yet. */
function newAnswer(body) {
  return {
    role: "assistant",
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

/** A message as a request sends it. */
function asMessage(turn) {
  if (turn.role !== "assistant") {
    return turn.role === "tool"
      ? { role: "tool", tool_call_id: turn.callId, content: turn.content }
      : { role: turn.role, content: turn.content };
  }
  const message = { role: "assistant", content: turn.content };
  if (turn.calls.length > 0) {
    message.tool_calls = turn.calls.map((call) => ({
      id: call.id,
      type: "function",
      function: { name: call.name, arguments: call.arguments },
    }));
  }
  return message;
}

/** Whether an answer says anything that the next request could repeat. */
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

  /** Say something and let the model answer. `fields` are a request's beside model, messages and stream. */
  async say(content, settings) {
    this.turns.push({ role: "user", content });
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

  /** Say something else instead of what the user said at this place. What came after it goes. */
  async edit(at, content, settings) {
    this.turns.length = at;
    await this.say(content, settings);
  }

  clear() {
    this.stop();
    this.cleared = this.turns;
    this.turns = [];
    this.onChange();
  }

  /** What was cleared is there again. */
  bringBack() {
    this.turns = this.cleared;
    this.cleared = [];
    this.onChange();
  }

  /** End the request; what has come stays. */
  stop() {
    this.running?.abort();
  }

  requestFor({ system, fields }) {
    const messages = this.turns.filter(saysSomething).map(asMessage);
    if (system.trim() !== "") {
      messages.unshift({ role: "system", content: system });
    }
    return { model: this.model, messages, stream: true, stream_options: { include_usage: true }, ...fields };
  }

  async answer(settings) {
    this.stop();
    const answer = newAnswer(this.requestFor(settings));
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
    const chunks = this.api.stream(PATH, answer.body, {
      signal,
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
      take(answer, chunk);
      this.onChange();
    }
  }
}

function take(answer, chunk) {
  answer.usage = chunk.usage ?? answer.usage;
  const choice = chunk.choices?.find((each) => each.index === 0);
  if (choice === undefined) {
    return;
  }
  const { reasoning_content: reasoning, content, tool_calls: calls = [] } = choice.delta;
  const now = performance.now();
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
  answer.finishReason = choice.finish_reason ?? answer.finishReason;
}

function takeCall(answer, part) {
  answer.calls[part.index] ??= { id: part.id, name: "", arguments: "" };
  const call = answer.calls[part.index];
  call.name += part.function?.name ?? "";
  call.arguments += part.function?.arguments ?? "";
}

/** What was measured of an answer, in seconds and tokens; null where it is not known. */
export function measures(answer) {
  const { begunAt, firstAt, endedAt, thoughtFrom, thoughtUntil, usage } = answer;
  const tokens = usage?.completion_tokens ?? null;
  const seconds = firstAt === null || endedAt === null ? 0 : (endedAt - firstAt) / 1000;
  const isMeasurable = tokens >= MEASURABLE_TOKENS && seconds >= MEASURABLE_SECONDS;
  return {
    firstSeconds: firstAt === null ? null : (firstAt - begunAt) / 1000,
    thoughtSeconds: ((thoughtUntil ?? endedAt ?? performance.now()) - thoughtFrom) / 1000,
    tokens,
    promptTokens: usage?.prompt_tokens ?? null,
    cachedTokens: usage?.prompt_tokens_details?.cached_tokens ?? null,
    reasoningTokens: usage?.completion_tokens_details?.reasoning_tokens ?? null,
    // The first token was there when the time began.
    tokensPerSecond: isMeasurable ? (tokens - 1) / seconds : null,
  };
}
