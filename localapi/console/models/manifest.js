/** Problems of the manifest's last reload, with the surrounding lines, or its changes. */

import { html, useState } from "../dom.js";
import { duration, plural } from "../format.js";

export function Manifest({ status, api, now }) {
  const { last_attempt: attempt, last_change: change, manifest, preparing } = status;
  const files = manifest.files.map((file) => file.path);
  const broken = attempt && !attempt.ok;
  return html`<section class="card manifest ${broken ? "broken" : ""}" aria-label="Manifest">
    <div class="card-head">
      <div class="grow">
        <h2>${files.map(nameOf).join(" + ") || "No manifest"}
          ${broken ? html` <span class="badge bad">${plural(attempt.problems.length, "problem")}</span>`
            : Object.keys(attempt?.not_loaded ?? {}).length > 0
              ? html` <span class="badge warn">${plural(Object.keys(attempt.not_loaded).length, "model")} not replaced</span>`
            : preparing ? html` <span class="badge info">preparing</span>` : html` <span class="badge good">active</span>`}</h2>
        ${files.some((file) => file !== nameOf(file)) && html`<p class="muted break">
          ${files.map((file) => html`<span class="mono" key=${file}>${file}</span>`)}</p>`}
      </div>
      <${ReloadButton} api=${api} />
    </div>
    ${broken && html`<p class="small">Read ${ago(attempt.at, now)} and rejected; still serving
      revision ${attempt.revision}. Fix the file and save it.</p>`}
    <div role="status" class="stack">
      ${broken && attempt.problems.map((problem) => html`<${Problem} problem=${problem}
        key=${`${problem.source}:${problem.line}:${problem.message}`} />`)}
    </div>
    ${change && html`<p class="small muted">Revision ${change.revision}, ${ago(change.at, now)}:${" "}
      <${Changes} changes=${change.changes} first=${change.revision === 1} /></p>`}
  </section>`;
}

function ago(at, now) {
  const seconds = now - at;
  return seconds < 2 ? "just now" : `${duration(seconds)} ago`;
}

function nameOf(path) {
  return path.split(/[\\/]/).at(-1);
}

const SIGNS = [["added", "added"], ["changed", "reloaded"], ["updated", "updated in place"], ["removed", "removed"]];

const MOST_NAMES = 12;

function Changes({ changes, first }) {
  if (first) return `started with ${plural(changes.added.length, "model")}`;
  const kinds = SIGNS.filter(([key]) => changes[key].length > 0);
  if (kinds.length === 0 && !changes.server) return "nothing changed";
  return html`${kinds.map(([key, word], index) => html`${index > 0 && "; "}<${Names} ids=${changes[key]} /> ${word}`)}
    ${changes.server && `${kinds.length > 0 ? "; " : ""}server options changed`}`;
}

/** The first names of a long list, each in the direction of its script. */
function Names({ ids }) {
  const shown = ids.length > MOST_NAMES + 1 ? ids.slice(0, MOST_NAMES) : ids;
  return html`${shown.map((id, index) => html`${index > 0 && ", "}<bdi key=${id}>${id}</bdi>`)}
    ${shown.length < ids.length && ` and ${ids.length - shown.length} more`}`;
}

function Problem({ problem }) {
  const place = problem.line === null ? problem.source : `${nameOf(problem.source)}:${problem.line}:${problem.column}`;
  return html`<div class="problem">
    <p><span class="place mono" title=${problem.source}>${place}</span>${" "}
      ${problem.key && html`<code>${problem.key}</code>`} ${problem.message}</p>
    ${problem.excerpt && html`<${Excerpt} ...${problem.excerpt} marked=${problem.line} column=${problem.column} />`}
  </div>`;
}

function Excerpt({ first_line: first, lines, marked, column }) {
  return html`<div class="excerpt" role="group" aria-label="Lines ${first} to ${first + lines.length - 1}" tabindex="0">
    <table><tbody>${lines.map((line, index) => {
      const number = first + index;
      const here = number === marked;
      return html`<tr key=${number} class=${here ? "marked" : ""}>
        <th scope="row">${number}</th>
        <td>${here ? html`<mark><${Pointed} line=${line} column=${column} /></mark>` : line || " "}</td>
      </tr>`;
    })}</tbody></table>
  </div>`;
}

/** The line with the place underlined from its column on, up to a comment. */
function Pointed({ line, column }) {
  const at = Math.min(Math.max((column ?? 1) - 1, 0), line.length);
  const end = endOfValues(line, at);
  return html`${line.slice(0, at)}<b>${line.slice(at, end) || " "}</b>${line.slice(end)}`;
}

/** Return the end of the values in a line of YAML, from a place on; blanks and a comment may follow. */
function endOfValues(line, from) {
  const values = /^(?:"(?:\\.|[^"\\])*"|'(?:''|[^'])*'|[^\s#"'](?:[^\s,[\]{}])*|[,[\]{}"']|\s+(?=[^\s#]))*/;
  return from + (values.exec(line.slice(from))?.[0].length ?? 0);
}

function ReloadButton({ api }) {
  const [state, setState] = useState({});
  const reload = async () => {
    setState({ busy: true });
    try {
      await api.post("/admin/reload");
      setState({});
    } catch (error) {
      setState(error.status === 422 ? {} : { error }); // what is wrong is shown from the status
    }
  };
  return html`${state.error && html`<span class="small bad-text">${state.error.message}</span>`}
    <button class="button small" onClick=${() => !state.busy && reload()} aria-disabled=${state.busy === true}>Reload</button>`;
}
