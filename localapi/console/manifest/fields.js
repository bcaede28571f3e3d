/** Controls for the values of an entry, made from the JSON Schema. An empty control leaves its option out. */

import { html, useState } from "../dom.js";
import { capitalized } from "../format.js";
import { controlOf, partOf, placeholderOf, shownValue, typedValue } from "./schema.js";

/**
 * One option: its name, its control, its description, and what the server says is wrong with it.
 *   path      the keys that lead to it in the manifest
 *   onChange  is called with its new value, undefined to leave it out
 *   form      {root, problems, inherited}: the whole schema; problems by key; inherited values of the entry
 */
export function Option({ path, schema, required = false, value, inherited, onChange, form }) {
  const control = controlOf(schema, form.root);
  const given = { path, schema, required, value, inherited, onChange, form };
  switch (control.kind) {
    case "group":
      return html`<${Group} ...${given} inner=${control.schema} />`;
    case "map":
      return html`<${MapOption} ...${given} item=${control.value} />`;
    case "union":
      return html`<${Union} ...${given} parts=${control.parts} />`;
    default:
      return html`<${Labelled} ...${given} control=${control} />`;
  }
}

/** The options of an object, those that are required or set first, the others folded. */
export function Options({ path, schema, skip = [], values, inherited = {}, onChange, form }) {
  const required = new Set(schema.required ?? []);
  const isInner = path.length > (path[0] === "server" ? 1 : 2);
  const names = Object.keys(schema.properties).filter((name) => !skip.includes(name));
  const [atFirst] = useState(() => new Set(Object.keys(values)));
  const problemAt = (name) => form.problems.some(({ key }) => isAt(key, [...path, name]));
  const isShown = (name) => required.has(name) || atFirst.has(name) || problemAt(name);
  const one = (name) => html`<${Option} key=${name} path=${[...path, name]} schema=${schema.properties[name]} form=${form}
    required=${required.has(name)} value=${values[name]} inherited=${inherited[name]}
    onChange=${(value) => onChange(withValue(values, name, value))} />`;
  const first = names.filter(isShown).sort((one, other) => required.has(other) - required.has(one));
  const rest = names.filter((name) => !isShown(name));
  const unknown = Object.keys(values).filter((name) => !(name in schema.properties) && !skip.includes(name));
  return html`${first.map(one)}
    ${unknown.map((name) => html`<${Unknown} key=${name} path=${[...path, name]} value=${values[name]} form=${form}
      onRemove=${() => onChange(withValue(values, name, undefined))} />`)}
    ${rest.length > 0 && (isInner ? rest.map(one) : html`<details class="more"><summary>More options${" "}
      <span class="muted">${rest.length}</span></summary><div class="stack">${rest.map(one)}</div></details>`)}`;
}

/** An option that the chosen backend does not have. */
function Unknown({ path, value, form, onRemove }) {
  const name = path.at(-1);
  return html`<div class="field"><span>${name}</span>
    <div class="row"><code class="grow break">${shownValue(value)}</code>
      <button type="button" class="button small" aria-label="Remove ${name}" onClick=${onRemove}>Remove</button></div>
    <${Problems} path=${path} form=${form} /></div>`;
}

function Labelled({ path, schema, control, required, value, inherited, onChange, form, label }) {
  const id = path.join(".");
  const problems = problemsAt(form, path);
  const about = [schema.description, control.bounds && `${capitalized(control.bounds)}.`].filter(Boolean).join(" ");
  const described = [about && `${id}-hint`, problems.length > 0 && `${id}-problem`].filter(Boolean).join(" ");
  const given = { id, control, schema, value, inherited, onChange, required,
    attributes: { id, "aria-describedby": described || undefined, "aria-invalid": problems.length > 0 ? "true" : undefined } };
  return html`<div class="field">
    <label for=${id}>${label ?? path.at(-1)}${required && html` <span class="muted">required</span>`}</label>
    <${Control} ...${given} />
    ${about && html`<span class="hint" id="${id}-hint">${about}</span>`}
    ${problems.length > 0 && html`<span class="bad-text" id="${id}-problem" role="alert">${problems.join(" ")}</span>`}
  </div>`;
}

function Control({ control, schema, value, inherited, onChange, attributes }) {
  const placeholder = placeholderOf(schema, inherited, control.kind);
  if (control.kind === "choice" && (value === undefined || control.values.includes(value))) {
    return html`<select class="input" ...${attributes} value=${value === undefined ? "" : JSON.stringify(value)}
      onChange=${(event) => onChange(event.target.value === "" ? undefined : JSON.parse(event.target.value))}>
      <option value="">${placeholder === "" ? "not set" : `default: ${placeholder}`}</option>
      ${control.values.map((each) => html`<option key=${each} value=${JSON.stringify(each)}>${shownValue(each)}</option>`)}
    </select>`;
  }
  if (control.kind === "list") {
    return html`<${Lines} ...${{ control, value, onChange, attributes, placeholder }} />`;
  }
  if (control.kind === "json" || (value !== undefined && value !== null && typeof value === "object")) {
    return html`<${Json} ...${{ value, onChange, attributes, placeholder }} />`;
  }
  return html`<${Text} ...${{ control, value, onChange, attributes, placeholder }} />`;
}

function Text({ control, value, onChange, attributes, placeholder }) {
  const [text, setText] = useState(() => (value === undefined || value === null ? "" : String(value)));
  const change = (event) => {
    setText(event.target.value);
    onChange(typedValue(control, event.target.value));
  };
  return html`<input class="input" ...${attributes} value=${text} placeholder=${placeholder} spellcheck=${false}
    autocomplete="off" inputmode=${control.numeric ? "decimal" : undefined} onInput=${change} />`;
}

/** A list with one item on a line. */
function Lines({ control, value, onChange, attributes, placeholder }) {
  const [text, setText] = useState(() => [value ?? []].flat().map(shownValue).join("\n"));
  const change = (event) => {
    setText(event.target.value);
    const items = event.target.value.split("\n").map((line) => typedValue(control.item, line));
    const found = items.filter((item) => item !== undefined);
    onChange(found.length > 0 ? found : undefined);
  };
  return html`<textarea class="input" ...${attributes} rows=${Math.min(8, Math.max(2, text.split("\n").length))} spellcheck=${false}
    placeholder=${placeholder || "one per line"} value=${text} onInput=${change}></textarea>`;
}

function Json({ value, onChange, attributes, placeholder }) {
  const [text, setText] = useState(() => (value === undefined ? "" : JSON.stringify(value, null, 1)));
  const [wrong, setWrong] = useState("");
  const change = (event) => {
    setText(event.target.value);
    try {
      onChange(event.target.value.trim() === "" ? undefined : JSON.parse(event.target.value));
      setWrong("");
    } catch (error) {
      setWrong(`Not valid JSON: ${error.message}`);
    }
  };
  return html`<textarea class="input mono" ...${attributes} rows="3" spellcheck=${false} placeholder=${placeholder}
      aria-invalid=${wrong ? "true" : attributes["aria-invalid"]} value=${text} onInput=${change}></textarea>
    ${wrong && html`<span class="bad-text" role="alert">${wrong}</span>`}`;
}

function Group({ path, schema, inner, required, value, inherited, onChange, form }) {
  const values = isObject(value) ? value : {};
  const open = required || isObject(value) || form.problems.some(({ key }) => isAt(key, path));
  return html`<details class="group-option" open=${open}>
    <summary>${path.at(-1)}${schema.description && html`<span class="hint">${schema.description}</span>`}</summary>
    <div class="stack"><${Problems} path=${path} form=${form} />
      <${Options} path=${path} schema=${inner} values=${values} inherited=${isObject(inherited) ? inherited : {}} form=${form}
        onChange=${(next) => onChange(Object.keys(next).length > 0 ? next : undefined)} /></div>
  </details>`;
}

/** Values by names that the user chooses. */
function MapOption({ path, schema, item, value, onChange, form }) {
  const [name, setName] = useState("");
  const values = isObject(value) ? value : {};
  const id = `${path.join(".")}-new`;
  const add = () => {
    const wanted = name.trim();
    if (wanted !== "" && !(wanted in values)) onChange({ ...values, [wanted]: controlOf(item, form.root).kind === "group" ? {} : "" });
    setName("");
  };
  const change = (key) => (next) => onChange({ ...values, [key]: next ?? "" });
  const remove = (key) => {
    const next = withValue(values, key, undefined);
    onChange(Object.keys(next).length > 0 ? next : undefined);
  };
  return html`<details class="group-option" open=${isObject(value) || form.problems.some(({ key }) => isAt(key, path))}>
    <summary>${path.at(-1)}${schema.description && html`<span class="hint">${schema.description}</span>`}</summary>
    <div class="stack"><${Problems} path=${path} form=${form} />
      ${Object.keys(values).map((key) => html`<div class="map-item" key=${key}>
        <div class="grow"><${Option} path=${[...path, key]} schema=${item} value=${values[key]} onChange=${change(key)} form=${form} /></div>
        <button type="button" class="button small" aria-label="Remove ${key}" onClick=${() => remove(key)}>Remove</button></div>`)}
      <div class="row"><label class="sr" for=${id}>New name in ${path.at(-1)}</label>
        <input class="input" id=${id} value=${name} placeholder="new name" onInput=${(event) => setName(event.target.value)}
          onKeyDown=${(event) => { if (event.key === "Enter") { event.preventDefault(); add(); } }} />
        <button type="button" class="button" onClick=${add}>Add</button></div></div>
  </details>`;
}

/** A value of one of several shapes, with a choice of the shape. */
function Union({ path, schema, required, parts, value, inherited, onChange, form }) {
  const [chosen, setChosen] = useState(() => parts.indexOf(partOf(parts, value)));
  const part = parts[chosen];
  const id = `${path.join(".")}-shape`;
  const choose = (event) => {
    setChosen(Number(event.target.value));
    onChange(undefined);
  };
  const shape = html`<label class="sr" for=${id}>Type of ${path.at(-1)}</label>
    <select class="input shape" id=${id} value=${chosen} onChange=${choose}>
      ${parts.map((each, index) => html`<option key=${index} value=${index}>${each.name}</option>`)}</select>`;
  const given = { path, schema, required, value, inherited, onChange, form };
  const inner = part.kind === "group" ? html`<${Group} key="group" ...${given} inner=${part.schema} />`
    : part.kind === "map" ? html`<${MapOption} key="map" ...${given} item=${part.value} />`
    : html`<${Labelled} key=${part.kind} ...${given} control=${part} />`;
  return html`<div class="union">${inner}${shape}</div>`;
}

export function Problems({ path, form }) {
  const found = problemsAt(form, path);
  return found.length > 0 && html`<p class="bad-text small" role="alert">${found.join(" ")}</p>`;
}

function problemsAt(form, path) {
  return form.problems.filter(({ key }) => key === path.join(".")).map(({ message }) => `${message}.`);
}

/** True if a problem's key is a path, or is below it. */
function isAt(key, path) {
  return key === path.join(".") || key.startsWith(`${path.join(".")}.`);
}

function isObject(value) {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function withValue(values, name, value) {
  const { [name]: old, ...rest } = values;
  return value === undefined ? rest : { ...values, [name]: value };
}
