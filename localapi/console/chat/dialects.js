/**
 * The wire formats in which a chat can be sent. Each makes a request of the turns, and reads what comes back.
 *
 * A dialect has `path`, `framing` ("events" or "lines", see api.js), `isEnd(chunk)`, `hears` if it takes recordings, `body(chat)` with a chat of
 * {model, system, turns, fields}, where `fields` are named as chat completions name them, and `reader()`, a function
 * that makes of each chunk a part of the answer: {reasoning, content, calls: [{index, id, name, arguments}],
 * usage: {prompt, cached, completion, reasoning}, finishReason}, all of them optional.
 */

/** Anthropic's API requires a limit. */
const MAX_TOKENS = 4096;

const chatCompletions = {
  label: "chat completions",
  hears: true,
  path: "/v1/chat/completions",
  framing: "events",
  isEnd: () => false, // at [DONE]
  body: ({ model, system, turns, fields }) => ({
    model,
    messages: [...systemMessage(system), ...turns.map(asMessage)],
    stream: true,
    stream_options: { include_usage: true },
    ...fields,
  }),
  reader: () => (chunk) => {
    const part = {};
    if (chunk.usage) {
      part.usage = usageOf(chunk.usage.prompt_tokens, chunk.usage.completion_tokens, {
        cached: chunk.usage.prompt_tokens_details?.cached_tokens,
        reasoning: chunk.usage.completion_tokens_details?.reasoning_tokens,
      });
    }
    const choice = chunk.choices?.find((each) => each.index === 0);
    if (choice !== undefined) {
      const { reasoning_content: reasoning, content, tool_calls: calls = [] } = choice.delta;
      Object.assign(part, { reasoning, content, finishReason: choice.finish_reason });
      part.calls = calls.map((call) => ({ index: call.index, id: call.id, ...call.function }));
    }
    return part;
  },
};

const responses = {
  label: "responses",
  hears: true,
  path: "/v1/responses",
  framing: "events",
  isEnd: () => false, // at [DONE]
  body: ({ model, system, turns, fields }) => {
    const { max_tokens, reasoning_effort, tools, response_format, ...others } = fields;
    const body = { model, input: turns.flatMap(asItems), stream: true, store: false, ...others };
    if (system.trim() !== "") body.instructions = system;
    if (max_tokens !== undefined) body.max_output_tokens = max_tokens;
    if (reasoning_effort !== undefined) body.reasoning = { effort: reasoning_effort, summary: "auto" };
    if (tools !== undefined) body.tools = tools.map(({ function: made, ...tool }) => ({ ...tool, ...made }));
    if (response_format !== undefined) {
      const { json_schema: schema, ...format } = response_format;
      body.text = { format: { ...format, ...schema } };
    }
    return body;
  },
  reader: () => {
    const calls = []; // places of the calls among the items of the output
    return (event) => {
      switch (event.type) {
        case "response.output_text.delta":
        case "response.refusal.delta":
          return { content: event.delta };
        case "response.reasoning_text.delta":
        case "response.reasoning_summary_text.delta":
          return { reasoning: event.delta };
        case "response.output_item.added":
          if (event.item.type !== "function_call") return {};
          calls.push(event.output_index);
          return { calls: [{ index: calls.length - 1, id: event.item.call_id, name: event.item.name, arguments: "" }] };
        case "response.function_call_arguments.delta":
          return { calls: [{ index: calls.indexOf(event.output_index), arguments: event.delta }] };
        case "response.completed":
        case "response.incomplete":
          return endOfResponse(event.response, calls.length > 0);
        default:
          return {};
      }
    };
  },
};

function endOfResponse({ status, usage }, hasCalls) {
  const whole = hasCalls ? "tool_calls" : "stop";
  return {
    finishReason: status === "incomplete" ? "length" : whole,
    usage: usage
      ? usageOf(usage.input_tokens, usage.output_tokens, {
          cached: usage.input_tokens_details?.cached_tokens,
          reasoning: usage.output_tokens_details?.reasoning_tokens,
        })
      : null,
  };
}

const STOP_REASONS = { end_turn: "stop", stop_sequence: "stop", tool_use: "tool_calls", max_tokens: "length" };

const messages = {
  label: "messages",
  path: "/v1/messages",
  framing: "events",
  isEnd: (event) => event.type === "message_stop",
  body: ({ model, system, turns, fields }) => {
    const { stop, tools, response_format, max_tokens = MAX_TOKENS, reasoning_effort, ...others } = fields;
    const body = { model, messages: withResultsTogether(turns.map(asBlocks)), stream: true, max_tokens, ...others };
    if (system.trim() !== "") body.system = system;
    if (stop !== undefined) body.stop_sequences = [stop].flat();
    if (reasoning_effort === "none") {
      body.thinking = { type: "disabled" };
    } else if (reasoning_effort !== undefined) {
      body.thinking = { type: "adaptive" };
      body.reasoning_effort = reasoning_effort;
    }
    if (tools !== undefined) {
      body.tools = tools.map((tool) => {
        const { parameters = { type: "object" }, ...made } = tool.function ?? tool;
        return { ...made, input_schema: parameters };
      });
    }
    if (response_format?.json_schema !== undefined) {
      body.output_config = { format: { type: "json_schema", schema: response_format.json_schema.schema } };
    } else if (response_format !== undefined) {
      body.response_format = response_format;
    }
    return body;
  },
  reader: () => {
    const calls = [];
    return (event) => {
      if (event.type === "content_block_start" && event.content_block.type === "tool_use") {
        calls.push(event.index);
        const { id, name } = event.content_block;
        return { calls: [{ index: calls.length - 1, id, name, arguments: "" }] };
      }
      if (event.type === "content_block_delta") {
        const { text, thinking, partial_json } = event.delta;
        const isCall = partial_json !== undefined;
        return {
          content: text,
          reasoning: thinking,
          calls: isCall ? [{ index: calls.indexOf(event.index), arguments: partial_json }] : [],
        };
      }
      if (event.type === "message_delta") {
        const { input_tokens: read, cache_read_input_tokens: cached = 0, output_tokens: written } = event.usage ?? {};
        return {
          finishReason: STOP_REASONS[event.delta.stop_reason] ?? event.delta.stop_reason,
          usage: read === undefined ? null : usageOf(read + cached, written, { cached }),
        };
      }
      return {};
    };
  },
};

/** Ollama's names of parameters, which it has below `options`. */
const OPTIONS = {
  temperature: "temperature", top_p: "top_p", top_k: "top_k", min_p: "min_p", max_tokens: "num_predict", seed: "seed",
  presence_penalty: "presence_penalty", frequency_penalty: "frequency_penalty", repetition_penalty: "repeat_penalty",
  stop: "stop",
};
/** Its levels of thinking. */
const LEVELS = { none: false, minimal: "low", low: "low", medium: "medium", high: "high", xhigh: "max", max: "max" };

const ollama = {
  label: "Ollama's chat",
  path: "/api/chat",
  framing: "lines",
  isEnd: (line) => line.done,
  body: ({ model, system, turns, fields }) => {
    const { reasoning_effort, response_format, ...rest } = fields;
    const body = { model, messages: [...systemMessage(system), ...turns.map(asOllamaMessage)], stream: true };
    for (const [name, value] of Object.entries(rest)) {
      if (name in OPTIONS) {
        body.options = { ...body.options, [OPTIONS[name]]: value };
      } else {
        body[name] = value;
      }
    }
    if (reasoning_effort !== undefined) body.think = LEVELS[reasoning_effort];
    if (response_format !== undefined) body.format = response_format.json_schema?.schema ?? "json";
    return body;
  },
  reader: () => {
    let count = 0;
    return ({ message, done, done_reason, prompt_eval_count, eval_count }) => {
      const calls = (message?.tool_calls ?? []).map((call) => ({
        index: count++,
        id: call.id,
        name: call.function.name,
        arguments: JSON.stringify(call.function.arguments),
      }));
      const part = { content: message?.content, reasoning: message?.thinking, calls };
      if (done) {
        part.finishReason = done_reason === "stop" && count > 0 ? "tool_calls" : done_reason;
        part.usage = eval_count === undefined ? null : usageOf(prompt_eval_count, eval_count);
      }
      return part;
    };
  },
};

export const DIALECTS = { "": chatCompletions, responses, messages, ollama };

function usageOf(prompt, completion, { cached = null, reasoning = null } = {}) {
  return { prompt, completion, cached, reasoning };
}

function systemMessage(system) {
  return system.trim() === "" ? [] : [{ role: "system", content: system }];
}

/** A turn as a message of chat completions. */
function asMessage(turn) {
  if (turn.role === "tool") {
    return { role: "tool", tool_call_id: turn.callId, content: turn.content };
  }
  const message = { role: turn.role, content: turn.content };
  if (turn.images?.length > 0) {
    message.content = [
      ...turn.images.map((image) => audioPart(image) ?? { type: "image_url", image_url: { url: image.url } }),
      ...(turn.content === "" ? [] : [{ type: "text", text: turn.content }]),
    ];
  }
  if (turn.calls?.length > 0) {
    message.tool_calls = turn.calls.map((call) => ({
      id: call.id,
      type: "function",
      function: { name: call.name, arguments: call.arguments },
    }));
  }
  return message;
}

/** A turn as items of responses. */
function asItems(turn) {
  if (turn.role === "tool") {
    return [{ type: "function_call_output", call_id: turn.callId, output: turn.content }];
  }
  if (turn.images?.length > 0) {
    const images = turn.images.map(
      (image) => audioPart(image) ?? { type: "input_image", image_url: image.url, detail: "auto" },
    );
    const text = turn.content === "" ? [] : [{ type: "input_text", text: turn.content }];
    return [{ role: turn.role, content: [...images, ...text] }];
  }
  const said = turn.content === "" ? [] : [{ role: turn.role, content: turn.content }];
  const calls = (turn.calls ?? []).map((call) => ({
    type: "function_call",
    call_id: call.id,
    name: call.name,
    arguments: call.arguments,
  }));
  return [...said, ...calls];
}

/** A turn as a message of Anthropic's. */
function asBlocks(turn) {
  if (turn.role === "tool") {
    return { role: "user", content: [{ type: "tool_result", tool_use_id: turn.callId, content: turn.content }] };
  }
  if (turn.images?.length > 0) {
    const images = turn.images.map(({ url }) => {
      const { type, data } = partsOf(url);
      return { type: "image", source: { type: "base64", media_type: type, data } };
    });
    const text = turn.content === "" ? [] : [{ type: "text", text: turn.content }];
    return { role: turn.role, content: [...images, ...text] };
  }
  if (!(turn.calls?.length > 0)) {
    return { role: turn.role, content: turn.content };
  }
  const said = turn.content === "" ? [] : [{ type: "text", text: turn.content }];
  const calls = turn.calls.map(({ id, name, arguments: text }) => ({
    type: "tool_use", id, name, input: objectOf(text),
  }));
  return { role: "assistant", content: [...said, ...calls] };
}

/** The results of one answer's calls belong into one message. */
function withResultsTogether(all) {
  const joined = [];
  for (const message of all) {
    const before = joined.at(-1);
    if (message.content[0]?.type === "tool_result" && before?.content[0]?.type === "tool_result") {
      before.content.push(...message.content);
    } else {
      joined.push(message);
    }
  }
  return joined;
}

/** A turn as a message of Ollama's. */
function asOllamaMessage(turn) {
  if (turn.role === "tool") {
    return { role: "tool", tool_call_id: turn.callId, tool_name: turn.name, content: turn.content };
  }
  const message = { role: turn.role, content: turn.content };
  if (turn.images?.length > 0) {
    message.images = turn.images.map(({ url }) => partsOf(url).data);
  }
  if (turn.calls?.length > 0) {
    message.tool_calls = turn.calls.map((call) => ({
      id: call.id,
      function: { name: call.name, arguments: objectOf(call.arguments) },
    }));
  }
  return message;
}

/** The type and the base64 of a data: URL. */
function partsOf(url) {
  const [, type, data] = url.match(/^data:([^;,]*)[^,]*,(.*)$/s);
  return { type, data };
}

/** A recording as a part of a message; undefined for an image. */
function audioPart({ url, kind }) {
  if (kind !== "audio") return undefined;
  const { type, data } = partsOf(url);
  return { type: "input_audio", input_audio: { data, format: type.split("/")[1] } };
}

/** The arguments of a call as an object; empty if the model wrote none that can be read. */
function objectOf(text) {
  try {
    return JSON.parse(text);
  } catch {
    return {};
  }
}
