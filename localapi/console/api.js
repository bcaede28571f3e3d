/**
 * Everything the console asks of its server.
 *
 * The key is in a variable of this module and nowhere else: a page that is loaded again has forgotten it.
 *
 *     await api.get("/v1/models")                      the parsed reply
 *     await api.post("/admin/models/x/load", body?)    the same
 *     await api.request("POST", path, body, {signal})  the Response itself, for sound; a body may be a FormData
 *     for await (const chunk of api.stream(path, body, {signal, onReply, onComment, framing, isEnd}))
 *                                                      each parsed `data:` of a stream, up to [DONE] or what `isEnd`
 *                                                      finds; or each line of JSON, if `framing` is "lines";
 *                                                      comments are {progress} or {relaxed}, see docs/http.md
 *     api.events(path, {onEvent, onState})             follows a stream for ever; returns what ends it
 *     api.hasKey                                       whether requests carry a key
 *
 * All of them throw ApiError, and AbortError where `signal` was used.
 */

const RETRY_MS = [500, 1000, 2000, 4000, 8000];
const SILENT_MS = 40_000;
/** The server comments at least every 15 s; a stream without a sign for longer is dead, as after a laptop slept. */

/** Error of one request. `status` is 0 if there was no reply; `reply` is the whole JSON, if any. */
export class ApiError extends Error {
  constructor(message, { status = 0, code = null, type = null, param = null, requestId = null, reply = null } = {}) {
    super(message);
    this.name = "ApiError";
    Object.assign(this, { status, code, type, param, requestId, reply });
  }

  /** OpenAI's or Anthropic's error object, or Ollama's text, from a reply's body or a stream. */
  static from(error, reply, whole = null) {
    return new ApiError(error.message ?? error, {
      reply: whole,
      status: reply.status, code: error.code, type: error.type, param: error.param,
      requestId: reply.headers.get("x-request-id"),
    });
  }
}

const SENDABLE = /^[\x21-\x7e]+$/;
const UNSENDABLE = new ApiError("A key consists of printable ASCII characters without spaces.", { status: 401 });

/** `onRefused` is called with each 401. */
export function createApi({ onRefused = () => {} } = {}) {
  let key = null;

  async function request(method, path, body, { signal, headers = {} } = {}) {
    const used = key;
    const all = { ...headers };
    if (key !== null) {
      if (!SENDABLE.test(key)) {
        onRefused(UNSENDABLE);
        throw UNSENDABLE;
      }
      all.Authorization = `Bearer ${key}`;
    }
    const isForm = body instanceof FormData; // its Content-Type has a boundary, which the browser makes up
    if (body !== undefined && !isForm) all["Content-Type"] = "application/json";
    const sent = { method, headers: all, signal, cache: "no-store", credentials: "omit", redirect: "error" };
    if (body !== undefined) sent.body = isForm ? body : JSON.stringify(body);
    const reply = await unlessUnreachable(fetch(path, sent));
    if (reply.ok) return reply;
    const error = await errorOf(reply);
    if (error.status === 401 && used === key) onRefused(error); // not where another key was given meanwhile
    throw error;
  }

  async function json(method, path, body, options) {
    const reply = await request(method, path, body, options);
    return await reply.json();
  }

  async function* stream(path, body, { signal, onReply = () => {}, ...options } = {}) {
    const reply = await request("POST", path, body, { signal });
    onReply(reply);
    yield* contentsOf(reply, options);
  }

  function events(path, { onEvent, onState = () => {} }) {
    const ended = new AbortController();
    follow(path, onEvent, onState, ended.signal);
    return () => ended.abort();
  }

  /** States: {name: "open" | "lost" | "refused", error?}. A refusal is the end; what is lost is tried again. */
  async function follow(path, onEvent, onState, signal) {
    for (let failures = 0; !signal.aborted; failures += 1) {
      try {
        await listen(path, (event) => {
          if (failures !== -1) onState({ name: "open" });
          failures = -1;
          onEvent(event.name, JSON.parse(event.data));
        }, signal);
        if (!signal.aborted) onState({ name: "lost", error: new ApiError("The server closed the connection.") });
      } catch (error) {
        if (signal.aborted) return;
        const refused = error.status === 401 || error.status === 403;
        onState({ name: refused ? "refused" : "lost", error });
        if (refused) return;
      }
      await sleep(RETRY_MS[Math.min(Math.max(failures, 0), RETRY_MS.length - 1)], signal);
    }
  }

  async function listen(path, onEvent, signal) {
    const silence = new AbortController();
    let timer = setTimeout(() => silence.abort(), SILENT_MS);
    try {
      const reply = await request("GET", path, undefined, { signal: AbortSignal.any([signal, silence.signal]) });
      for await (const event of eventsOf(reply.body)) {
        clearTimeout(timer);
        timer = setTimeout(() => silence.abort(), SILENT_MS);
        if (event.data !== undefined) onEvent(event);
      }
    } catch (error) {
      if (silence.signal.aborted && !signal.aborted) throw new ApiError("The server has sent nothing for too long.");
      throw error;
    } finally {
      clearTimeout(timer);
    }
  }

  return {
    request,
    get: (path, options) => json("GET", path, undefined, options),
    post: (path, body, options) => json("POST", path, body, options),
    stream,
    events,
    useKey: (value) => { key = value || null; },
    get hasKey() { return key !== null; },
  };
}

async function unlessUnreachable(reply) {
  try {
    return await reply;
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ApiError("The server is not responding.");
  }
}

async function errorOf(reply) {
  try {
    const whole = await reply.json();
    return ApiError.from(whole.error, reply, whole);
  } catch {
    return new ApiError(`The server answered with status ${reply.status}.`, { status: reply.status });
  }
}

/** Each parsed content of a streamed reply; the options are those of `stream`. */
export async function* contentsOf(reply, { onComment = () => {}, framing = "events", isEnd = () => false } = {}) {
  const items = framing === "lines" ? linesOf(reply.body) : eventsOf(reply.body);
  for await (const event of items) {
    if (event.comment !== undefined) {
      if (event.comment.startsWith("{")) onComment(JSON.parse(event.comment)); // others may be of a proxy
    } else if (event.data === "[DONE]") {
      return;
    } else {
      const content = JSON.parse(event.data);
      if (content.error) throw ApiError.from(content.error, reply);
      yield content;
      if (isEnd(content)) return;
    }
  }
  throw new ApiError("The stream ended before the answer was complete.", { status: reply.status });
}

/** Server-sent events of a body, as {name, data} or {comment}. */
export async function* eventsOf(body) {
  for await (const block of blocksOf(body, "\n\n")) {
    yield eventOf(block);
  }
}

/** Lines of a body, each as the data of an event. */
async function* linesOf(body) {
  for await (const line of blocksOf(body, "\n")) {
    if (line.trim() !== "") yield { data: line };
  }
}

async function* blocksOf(body, separator) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  try {
    for (;;) {
      const { value, done } = await unlessBroken(reader.read());
      if (done) return;
      const blocks = (rest + value).split(separator);
      rest = blocks.pop();
      yield* blocks;
    }
  } finally {
    reader.cancel().catch(() => {});
  }
}

async function unlessBroken(read) {
  try {
    return await read;
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ApiError("The connection to the server was lost.");
  }
}

function eventOf(block) {
  if (block.startsWith(":")) return { comment: block.slice(1).trim() };
  const event = { name: "message", data: [] };
  for (const line of block.split("\n")) {
    if (line.startsWith("event: ")) event.name = line.slice(7);
    if (line.startsWith("data: ")) event.data.push(line.slice(6));
  }
  return { name: event.name, data: event.data.join("\n") };
}

function sleep(ms, signal) {
  return new Promise((resolve) => {
    const timer = setTimeout(resolve, ms);
    signal.addEventListener("abort", () => { clearTimeout(timer); resolve(); }, { once: true });
  });
}
