/** The form of one entry, one peer, or the server's options, or its lines; and what its change will do. */

import { html, useMemo, useState } from "../dom.js";
import { Options } from "./fields.js";
import { schemasOf } from "./schema.js";

/**
 * `entry` is as /admin/manifest has it; a new one has `isNew`. `problems` are those of its last try.
 * `onPlan` is called with the change, and `onEdit` when it is changed after that.
 */
export function EntryForm({ entry, root, problems, busy, onPlan, onEdit, onCancel }) {
  const { section, isNew } = entry;
  const schemas = useMemo(() => schemasOf(section, root), [section, root]);
  const [id, setId] = useState(entry.id);
  const [values, setValues] = useState(entry.options);
  const [yaml, setYaml] = useState(entry.yaml);
  const [asYaml, setAsYaml] = useState(false);
  const backends = Object.keys(schemas).filter((name) => name !== "");
  const backend = values.backend ?? entry.inherited.backend;
  const schema = schemas[backend ?? ""] ?? (backends.length > 0 ? null : schemas[""]);
  const change = () => {
    const named = { section, id: isNew ? id.trim() : entry.id };
    if (asYaml) return { ...named, yaml };
    return { ...named, options: values, ...(!isNew && id.trim() !== entry.id ? { new_id: id.trim() } : {}) };
  };
  const edited = (set) => (value) => { set(value); onEdit(); };
  const submit = (event) => { event.preventDefault(); if (!busy) onPlan(change()); };
  const at = section === "server" ? ["server"] : [section, isNew ? id.trim() : entry.id];
  const form = { root, problems: renamed(problems, at, id.trim()) };
  const elsewhere = form.problems.filter(({ key }) => asYaml || key === "" || !key.startsWith(at.join(".")) || key === at.join("."));
  return html`<form class="card stack entry-form" onSubmit=${submit} aria-label=${isNew ? `New in ${section}` : at.join(".")}>
    <div class="card-head"><div class="grow"><h2 class="break">${isNew ? `New: ${section}` : at.join(" / ")}</h2>
        ${entry.file && html`<p class="small muted break mono">${entry.file}</p>`}</div>
      ${!isNew && html`<div class="segments" role="group" aria-label="View">
        <button type="button" class="button small" aria-pressed=${!asYaml} onClick=${() => { setAsYaml(false); onEdit(); }}>Form</button>
        <button type="button" class="button small" aria-pressed=${asYaml} onClick=${() => { setAsYaml(true); onEdit(); }}>YAML</button></div>`}</div>
    ${elsewhere.length > 0 && html`<div class="notice bad" role="alert"><strong>This change is not valid</strong>
      ${elsewhere.map((problem) => html`<span key=${problem.message}>${problem.key && html`<code>${problem.key}</code> `}${problem.message}</span>`)}</div>`}
    ${Object.keys(entry.overridden ?? {}).length > 0 && html`<div class="notice info"><strong>Set elsewhere</strong>
      ${Object.entries(entry.overridden).map(([key, origin]) => html`<span key=${key}><code>${key}</code>: ${origin} takes precedence</span>`)}</div>`}
    ${asYaml ? html`<label class="field"><span>Lines in the file</span>
        <textarea class="input mono" rows=${Math.max(6, yaml.split("\n").length + 1)} spellcheck=${false} value=${yaml}
          onInput=${(event) => edited(setYaml)(event.target.value)}></textarea>
        <span class="hint">········ hides a value that may be a secret. Leave it unchanged to keep the value.</span></label>`
      : html`
      ${section !== "server" && html`<div class="field"><label for="entry-id">id <span class="muted">required</span></label>
        <input class="input" id="entry-id" required maxlength="200" value=${id} spellcheck=${false} autocomplete="off"
          onInput=${(event) => edited(setId)(event.target.value)} />
        <span class="hint">${section === "peers" ? "Its models appear as id/model." : "The name that clients send as the model."}</span></div>`}
      ${backends.length > 0 && html`<div class="field"><label for="entry-backend">backend <span class="muted">required</span></label>
        <select class="input" id="entry-backend" value=${backend ?? ""} required
          onChange=${(event) => edited(setValues)({ ...values, backend: event.target.value })}>
          ${backend === undefined && html`<option value="">choose one</option>`}
          ${backends.map((name) => html`<option key=${name} value=${name}>${name}</option>`)}</select>
        ${schema?.description && html`<span class="hint">${schema.description}</span>`}</div>`}
      ${schema && html`<${Options} key=${backend} path=${at} schema=${schema} skip=${["backend"]} values=${values}
        inherited=${entry.inherited} form=${form} onChange=${edited(setValues)} />`}`}
    <div class="row wrap"><button class="button primary" type="submit" aria-disabled=${busy}>
        ${busy && html`<span class="spinner" aria-hidden="true"></span>`}Preview</button>
      <button type="button" class="button" onClick=${onCancel}>Cancel</button></div>
  </form>`;
}

/** Problems of an entry with a new name, at the path that its form has. */
function renamed(problems, at, id) {
  const now = `${at[0]}.${id}`;
  return at.length > 1 && id !== at[1]
    ? problems.map((each) => (each.key.startsWith(now) ? { ...each, key: at.join(".") + each.key.slice(now.length) } : each))
    : problems;
}
