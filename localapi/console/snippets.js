/** A request as people send it elsewhere: with curl, and with OpenAI's Python client. */

/** Arguments of the client; other parameters go into `extra_body`. */
const OPENAI_CHAT = new Set(
  (
    "model messages stream stream_options temperature top_p max_tokens max_completion_tokens seed presence_penalty " +
    "frequency_penalty reasoning_effort stop tools tool_choice parallel_tool_calls response_format logit_bias " +
    "logprobs top_logprobs n user metadata store verbosity"
  ).split(" "),
);
const OPENAI_SPEECH = new Set("model input voice instructions response_format speed stream_format".split(" "));

const KEY_VARIABLE = "LOCALAPI_API_KEY";

function quoted(text) {
  return `'${text.replaceAll("'", `'\\''`)}'`;
}

function quotedIfOdd(text) {
  return /^[\w:/.[\]@%=-]+$/.test(text) ? text : quoted(text);
}

/**
 * `keyed`: whether the server wants a key. The key itself is never in a snippet. `file` is where the reply goes, and
 * `recordings` the files that fields of the body were read from, by the fields' names.
 */
export function asCurl(path, body, { method = "POST", keyed = false, file = null, recordings = {} } = {}) {
  const sent = body === undefined ? [] : ["-H 'Content-Type: application/json'", dataOf(body, recordings)];
  const lines = [
    `curl ${file ? "-s" : "-sN"} ${quotedIfOdd(location.origin + path)}`,
    ...(method === "GET" || (method === "POST" && body !== undefined) ? [] : [`-X ${method}`]),
    ...(keyed ? [`-H "Authorization: Bearer $${KEY_VARIABLE}"`] : []),
    ...(file ? [`-o ${quotedIfOdd(file)}`] : []),
    ...sent,
  ];
  return `${lines.join(" \\\n  ")}\n`;
}

/** The fields of a body that were read from files. */
function readFrom(body, recordings) {
  return Object.keys(recordings).filter((name) => body[name] !== undefined);
}

/** A recording is longer than an argument may be, so it is read where the command runs. */
function dataOf(body, recordings) {
  const names = readFrom(body, recordings);
  if (names.length === 0) {
    return `-d ${quoted(JSON.stringify(body, null, 2))}`;
  }
  const emptied = { ...body, ...Object.fromEntries(names.map((name) => [name, ""])) };
  const escaped = JSON.stringify(emptied, null, 2).replace(/[\\$`]/g, "\\$&");
  const filled = names.reduce((text, name) => {
    const read = `$(base64 < ${quotedIfOdd(recordings[name])} | tr -d '\\n')`;
    return text.replace(new RegExp(`(?<=^  "${name}": ")(?=",?$)`, "m"), () => read);
  }, escaped);
  return `-d @- <<JSON\n${filled}\nJSON`;
}

/** Python expression for a value that is not JSON. */
class Expression {
  constructor(text) {
    this.text = text;
  }
}

/** A JSON value as Python writes it. */
export function asPythonValue(value, indent = 0) {
  if (value instanceof Expression) {
    return value.text;
  }
  const inner = " ".repeat(indent + 4);
  const outer = " ".repeat(indent);
  if (value === null) {
    return "None";
  }
  if (typeof value === "boolean") {
    return value ? "True" : "False";
  }
  if (typeof value !== "object") {
    return JSON.stringify(value);
  }
  const [open, close] = Array.isArray(value) ? "[]" : "{}";
  const items = Array.isArray(value)
    ? value.map((each) => asPythonValue(each, indent + 4))
    : Object.entries(value).map(([key, each]) => `${JSON.stringify(key)}: ${asPythonValue(each, indent + 4)}`);
  const line = `${open}${items.join(", ")}${close}`;
  if (indent + line.length < 88 && !line.includes("\n")) {
    return line;
  }
  return `${open}\n${items.map((item) => `${inner}${item},\n`).join("")}${outer}${close}`;
}

/** The keyword arguments of a call; what the client does not know goes as extra_body. */
function argumentsOf(body, known) {
  const entries = Object.entries(body);
  const extra = Object.fromEntries(entries.filter(([key]) => !known.has(key)));
  const lines = entries
    .filter(([key]) => known.has(key))
    .map(([key, value]) => `    ${key}=${asPythonValue(value, 4)},\n`);
  if (Object.keys(extra).length > 0) {
    lines.push(`    extra_body=${asPythonValue(extra, 4)},\n`);
  }
  return lines.join("");
}

function client(keyed, imports = [], from = []) {
  const all = [...imports, ...(keyed ? ["import os"] : []), ...from];
  const key = keyed ? `os.environ["${KEY_VARIABLE}"]` : '"unused"';
  return (
    `${all.length > 0 ? `${all.join("\n")}\n\n` : ""}from openai import OpenAI\n\n` +
    `client = OpenAI(base_url="${location.origin}/v1", api_key=${key})\n`
  );
}

export function chatAsPython(body, { keyed = false } = {}) {
  return (
    `${client(keyed)}stream = client.chat.completions.create(\n${argumentsOf(body, OPENAI_CHAT)})\n` +
    "for chunk in stream:\n" +
    "    if chunk.choices:\n" +
    "        delta = chunk.choices[0].delta\n" +
    '        print(delta.content or "", end="", flush=True)\n' +
    "        for call in delta.tool_calls or []:\n" +
    '            print(call.function.name or "", call.function.arguments or "", end="", flush=True)\n' +
    "print()\n"
  );
}

/** A form with a file, which is read where the command runs. */
export function formAsCurl(path, fields, fileName, { keyed = false } = {}) {
  // In a form, curl reads "@" and "<" at the beginning of a value as a file to send, unless it is --form-string.
  const parts = Object.entries(fields).map(([name, value]) => `--form-string ${quotedIfOdd(`${name}=${value}`)}`);
  const escaped = fileName.replace(/["\\]/g, "\\$&");
  const lines = [
    `curl -sN ${quotedIfOdd(location.origin + path)}`,
    ...(keyed ? [`-H "Authorization: Bearer $${KEY_VARIABLE}"`] : []),
    ...parts,
    `-F ${quoted(`file=@"${escaped}"`)}`,
  ];
  return `${lines.join(" \\\n  ")}\n`;
}

/** The client streams only transcriptions. */
export function transcriptionAsPython(path, { stream, ...fields }, fileName, { keyed = false } = {}) {
  const isTranslation = path.endsWith("/translations");
  const method = isTranslation ? "translations" : "transcriptions";
  const known = new Set(["model", "prompt", "response_format", ...(isTranslation ? [] : ["language"])]);
  const call = `client.audio.${method}.create(\n    file=file,\n${argumentsOf(fields, known)})`;
  return (
    `${client(keyed)}with open(${JSON.stringify(fileName)}, "rb") as file:\n` +
    `    transcript = ${call.replaceAll("\n", "\n    ")}\nprint(transcript.text)\n`
  );
}

/** The client wants a voice; `omit` is its word for none. */
export function speechAsPython(body, { keyed = false, file, recordings = {} }) {
  const voice = body.voice === undefined ? "    voice=omit,\n" : "";
  const names = readFrom(body, recordings);
  const read = (name) => `base64.b64encode(Path(${JSON.stringify(recordings[name])}).read_bytes()).decode()`;
  const said = { ...body, ...Object.fromEntries(names.map((name) => [name, new Expression(read(name))])) };
  const begun = names.length > 0 ? client(keyed, ["import base64"], ["from pathlib import Path"]) : client(keyed);
  return (
    `${voice ? begun.replace("import OpenAI", "import OpenAI, omit") : begun}` +
    `with client.audio.speech.with_streaming_response.create(\n${argumentsOf(said, OPENAI_SPEECH)}${voice})` +
    ` as reply:\n    reply.stream_to_file("${file}")\n`
  );
}
