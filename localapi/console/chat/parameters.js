/** Parameters of a chat: the page's fields for them, and their typed texts as JSON. */

/** Kinds: number, integer, text, lines (a text or several, one per line), choice, json (an object or a list). */
export const PARAMETERS = [
  { name: "temperature", kind: "number", hint: "0 to 2" },
  { name: "top_p", kind: "number", hint: "0 to 1" },
  { name: "top_k", kind: "integer", hint: "0: no limit" },
  { name: "min_p", kind: "number", hint: "0 to 1" },
  { name: "max_tokens", kind: "integer", hint: "1 or more" },
  { name: "seed", kind: "integer", hint: "a whole number" },
  { name: "presence_penalty", kind: "number", hint: "-2 to 2" },
  { name: "frequency_penalty", kind: "number", hint: "-2 to 2" },
  { name: "repetition_penalty", kind: "number", hint: "1: none" },
  {
    name: "reasoning_effort",
    kind: "choice",
    choices: ["none", "minimal", "low", "medium", "high", "xhigh", "max"],
  },
  { name: "stop", kind: "lines", hint: "one per line" },
];

export const JSON_PARAMETERS = [
  {
    name: "tools",
    kind: "json",
    shape: "list",
    hint: '[{"type": "function", "function": {"name": "get_weather", …}}]',
  },
  { name: "response_format", kind: "json", shape: "object", hint: '{"type": "json_schema", "json_schema": {…}}' },
  {
    name: "extra",
    kind: "json",
    shape: "object",
    hint: '{"logit_bias": {…}, "regex": "…", "tool_choice": "required"}',
  },
];

const OF_THE_PAGE = new Set("model messages stream stream_options n".split(" "));
const NUMBER = /^-?(?:\d+\.?\d*|\.\d+)(?:e[-+]?\d+)?$/i;
const INTEGER = /^-?\d+$/;

/** The value of one field, undefined where nothing was typed. Raises Error with what is wrong. */
export function valueOf(parameter, typed) {
  const text = typed ?? "";
  if (text.trim() === "") {
    return undefined;
  }
  switch (parameter.kind) {
    case "number":
    case "integer":
      return numberOf(parameter, text.trim());
    case "lines": {
      const lines = text.split("\n").filter((line) => line !== "");
      return lines.length === 1 ? lines[0] : lines;
    }
    case "json":
      return jsonOf(parameter, text);
    default:
      return text;
  }
}

function numberOf(parameter, text) {
  const [form, word] = parameter.kind === "integer" ? [INTEGER, "whole number"] : [NUMBER, "number"];
  if (!form.test(text)) {
    throw new Error(`${parameter.name}: ${JSON.stringify(text)} is not a ${word}.`);
  }
  if (parameter.kind === "integer" && !Number.isSafeInteger(Number(text))) {
    throw new Error(`${parameter.name}: ${text} is too large for a browser. Send it with curl.`);
  }
  return Number(text);
}

function jsonOf(parameter, text) {
  let value;
  try {
    value = JSON.parse(text);
  } catch (error) {
    throw new Error(`${parameter.name}: this is not valid JSON. ${error.message}`);
  }
  const found = Array.isArray(value) ? "list" : value === null ? "null" : typeof value;
  if (found !== parameter.shape) {
    throw new Error(`${parameter.name}: expected ${shapeName(parameter.shape)}, found ${shapeName(found)}.`);
  }
  return value;
}

function shapeName(shape) {
  return { list: "a list", object: "an object" }[shape] ?? shape;
}

/** The fields of a request that the settings say. Raises Error for the first that is wrong. */
export function requestFields(settings) {
  const fields = {};
  for (const parameter of [...PARAMETERS, ...JSON_PARAMETERS]) {
    const value = valueOf(parameter, settings[parameter.name]);
    if (value === undefined) {
      continue;
    }
    if (parameter.name === "extra") {
      Object.assign(fields, checkedExtra(value));
    } else {
      fields[parameter.name] = value;
    }
  }
  return fields;
}

function checkedExtra(value) {
  const own = Object.keys(value).find((name) => OF_THE_PAGE.has(name));
  if (own !== undefined) {
    throw new Error(`extra: '${own}' is set by the page. Remove it here.`);
  }
  return value;
}

/** Return the problem of one field; an empty text if there is none. */
export function problemOf(parameter, typed) {
  try {
    const value = valueOf(parameter, typed);
    if (parameter.name === "extra" && value !== undefined) {
      checkedExtra(value);
    }
    return "";
  } catch (error) {
    return error.message;
  }
}
