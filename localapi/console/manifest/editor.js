/** Edits the manifest's files: models, peers and server options, and the profile over them. The files stay the truth. */

import { html, useEffect, useRef, useState } from "../dom.js";
import { Failure } from "../failure.js";
import { capitalized } from "../format.js";
import { useSubject } from "../routes.js";
import { EntryForm } from "./entry.js";
import { FirstModels } from "./first_models.js";
import { Diff, Plan } from "./plan.js";
import { Profiles } from "./profiles.js";
import { sectionsOf } from "./schema.js";

const NO_PROBLEMS = [];

export function EditorPage({ status, api, server, active }) {
  const [content, error, read] = useContent(api, status, server, active);
  const [editing, setEditing] = useState(null); // {entry} of the form, or {entry, removes: true}
  const [wanted, setWanted] = useState(null);
  useSubject("manifest", setWanted);
  useEffect(() => {
    const entry = content?.written.find((each) => `${each.section}/${each.id}` === wanted);
    if (entry) setEditing({ entry });
    if (content) setWanted(null);
  }, [wanted, content]);
  const [saved, setSaved] = useState("");
  // The list comes back with the file as it is now: a change of an older one would be refused.
  const done = async (what) => { await read(); setEditing(null); setSaved(what); };
  const title = html`<div class="page-head"><h1>Manifest</h1></div>`;
  if (!server.admin) {
    return html`<div class="page">${title}<div class="empty"><strong>Admin right required</strong>
      <p>This key has no admin right, so it cannot see or edit the manifest.</p></div></div>`;
  }
  return html`<div class="page editor">
    <div class="page-head"><h1>Manifest</h1>
      ${content && html`<p class="small muted break mono">${content.path}</p>`}</div>
    ${error && html`<${Failure} error=${error} />`}
    ${!content && !error && html`<p class="row small muted"><span class="spinner" aria-hidden="true"></span>Reading the manifest…</p>`}
    ${content?.refusal && html`<div class="notice info"><strong>Read only</strong><span>${content.refusal}</span></div>`}
    <div role="status">${saved && !editing && html`<div class="notice good"><strong>${saved}</strong>
      <${Outcome} status=${status} /></div>`}</div>
    ${content && (editing
      ? html`<${Editing} key=${`${editing.entry.file}/${editing.entry.section}/${editing.entry.id}`} ...${{ api, content, editing, read }}
          onDone=${done} onCancel=${() => setEditing(null)} />`
      : html`<${List} ...${{ api, content, read, onEdit: (entry, removes = false) => { setSaved(""); setEditing({ entry, removes }); }, onDone: done }}>
          <${Profiles} ...${{ api, status, onDone: done }} /><//>`)}
  </div>`;
}

/** Result of the server's last reload. */
function Outcome({ status }) {
  const attempt = status?.last_attempt;
  if (!attempt) return null;
  return html`<span>${attempt.ok ? `Revision ${attempt.revision} is active.` : attempt.problems[0].message}</span>`;
}

/** The file, read again when the server has read another one. */
function useContent(api, status, server, active) {
  const [state, setState] = useState([null, null]);
  const digest = JSON.stringify([status?.manifest.files.map((file) => file.sha256), status?.manifest.profile, server.round]);
  const read = async () => {
    try {
      const [content, root] = await Promise.all([api.get("/admin/manifest"), api.get("/admin/manifest/schema")]);
      const found = { ...content, root };
      setState([found, null]);
      return found;
    } catch (error) {
      setState(([content]) => [content, error]);
      return null;
    }
  };
  useEffect(() => {
    if (active && server.admin && status) read();
  }, [digest, active, server.admin]);
  return [...state, read];
}

function List({ api, content, read, onEdit, onDone, children }) {
  const { written, elsewhere, refusal, undo, root } = content;
  const groups = [...sectionsOf(root), "peers"];
  const options = written.find(({ section, file }) => section === "server" && file === content.path) ?? {
    section: "server", id: "", options: {}, inherited: {}, yaml: "", overridden: {}, isNew: true };
  const [error, setError] = useState(null);
  const takeBack = async () => {
    try {
      await api.post("/admin/manifest/undo", { sha256: undo.sha256 });
      await onDone("Last change undone");
    } catch (failure) {
      setError(failure);
      await read();
    }
  };
  return html`
    ${error && html`<${Failure} error=${error} />`}
    <div class="row wrap">
      ${!refusal && html`<${Add} groups=${groups} onAdd=${(section) => onEdit(newEntry(section))} />
        <button class="button" onClick=${() => onEdit(options)}>Server options</button>
        ${undo && html`<button class="button" title=${undo.what} onClick=${takeBack}>Undo the last save</button>`}`}
      ${children}
    </div>
    ${groups.map((section) => html`<${Section} key=${section} section=${section} main=${content.path} refusal=${refusal} onEdit=${onEdit}
      written=${written.filter((each) => each.section === section)} elsewhere=${elsewhere.filter((each) => each.section === section)} />`)}
    ${!refusal && html`<${FirstModels} api=${api} onAdd=${(section, id, given) => onEdit({ ...newEntry(section), id, options: given })} />`}`;
}

function newEntry(section) {
  return { section, id: "", options: {}, inherited: {}, yaml: "", overridden: {}, isNew: true };
}

function Add({ groups, onAdd }) {
  return html`<label class="sr" for="add-kind">Add a model or a peer</label>
    <select class="input add-kind" id="add-kind" value="" onChange=${(event) => event.target.value && onAdd(event.target.value)}>
      <option value="">Add …</option>
      ${groups.map((section) => html`<option key=${section} value=${section}>${section === "peers" ? "a peer" : `a ${section} model`}</option>`)}
    </select>`;
}

function Section({ section, main, written, elsewhere, refusal, onEdit }) {
  if (written.length + elsewhere.length === 0) return null;
  return html`<section class="stack" aria-label=${capitalized(section)}>
    <h2 class="group">${capitalized(section)} <span class="muted">${written.length + elsewhere.length}</span></h2>
    ${written.map((entry) => html`<div class="card row wrap" key=${entry.file + entry.id}>
      <div class="grow"><strong class="break">${entry.id}</strong>
        <p class="small muted break">${entry.options.backend ?? entry.inherited.backend ?? ""} · ${entry.file === main ? "" : `${entry.file}, `}line ${entry.line}</p></div>
      ${!refusal && html`<button class="button small" aria-label="Edit ${entry.id}" onClick=${() => onEdit(entry)}>Edit</button>
        <button class="button small danger" aria-label="Remove ${entry.id}" onClick=${() => onEdit(entry, true)}>Remove</button>`}</div>`)}
    ${elsewhere.map(({ id, origin }) => html`<div class="card" key=${id}><strong class="break">${id}</strong>
      <p class="small muted break">${origin}</p></div>`)}
  </section>`;
}

/** A change on its way: the form, then the plan, then the file. It is for the version of the file that the form began with. */
function Editing({ api, content, editing, read, onDone, onCancel }) {
  const { removes } = editing;
  const file = editing.entry.file ?? content.path; // what is new goes into the manifest itself
  const digestIn = ({ files }) => files.find(({ path }) => path === file)?.sha256 ?? null;
  const [base, setBase] = useState({ sha256: digestIn(content), entry: editing.entry, round: 0 });
  const [state, setState] = useState({ problems: NO_PROBLEMS }); // change, plan, problems, error, busy
  const { entry } = base;
  const body = (change) => ({ file, sha256: base.sha256, changes: [change] });
  const attempt = async (change, path, onReply) => {
    setState((now) => ({ ...now, error: null, busy: true }));
    try {
      await onReply(await api.post(path, body(change)));
    } catch (error) {
      const problems = error.reply?.problems ?? NO_PROBLEMS;
      setState({ problems, change, error: problems.length > 0 && !removes ? null : error });
    }
  };
  const ask = (change) => attempt(change, "/admin/manifest/plan", (plan) => setState({ problems: NO_PROBLEMS, change, plan }));
  const save = () => attempt(state.change, "/admin/manifest/save", () => onDone(removes ? `Removed ${entry.id}` : "Saved"));
  const applyToNew = async () => {
    const fresh = await read();
    const current = fresh?.written.find((each) => each.file === file && each.section === entry.section && each.id === entry.id);
    const options = state.change.options && merged(entry.options, state.change.options, current?.options ?? {});
    if (!fresh) return;
    setBase({ sha256: digestIn(fresh), round: base.round + 1,
      entry: { ...entry, ...(current ?? { isNew: true }), options: options ?? current?.options ?? entry.options } });
    setState({ problems: NO_PROBLEMS });
  };
  useEffect(() => {
    if (removes) ask({ section: entry.section, id: entry.id, remove: true });
  }, [base.round]);
  const place = useRef(null);
  useEffect(() => { if (state.plan) place.current?.scrollIntoView({ block: "nearest" }); }, [state.plan]);
  return html`
    ${state.error && html`<div role="alert"><${Failure} error=${state.error} /></div>`}
    ${state.error?.code === "manifest_changed" && html`<section class="card stack" aria-label="Changed in the meantime">
      <h2>The file has changed in the meantime</h2>${state.error.reply.diff && html`<${Diff} text=${state.error.reply.diff} />`}
      <div class="row wrap"><button class="button primary" onClick=${applyToNew}>Apply my change to the new version</button>
        <button class="button" onClick=${onCancel}>Discard my change</button></div></section>`}
    ${!removes && html`<${EntryForm} key=${base.round} entry=${entry} root=${content.root} problems=${state.problems} busy=${state.busy === true}
      onPlan=${ask} onEdit=${() => setState((now) => (now.plan ? { problems: NO_PROBLEMS } : now))} onCancel=${onCancel} />`}
    <div ref=${place}>${state.plan && html`<${Plan} plan=${state.plan} busy=${state.busy === true} onSave=${save} onCancel=${onCancel} />`}</div>
    ${removes && !state.plan && html`<div class="row"><button class="button" onClick=${onCancel}>Back</button></div>`}`;
}

/** The options as they are now, with those that were changed here since `before`. */
function merged(before, mine, now) {
  const found = { ...now };
  for (const key of new Set([...Object.keys(before), ...Object.keys(mine)])) {
    if (JSON.stringify(before[key]) === JSON.stringify(mine[key])) continue;
    if (mine[key] === undefined) delete found[key];
    else found[key] = mine[key];
  }
  return found;
}
