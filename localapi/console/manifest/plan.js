/** Effects of a change, before it is saved. */

import { html } from "../dom.js";
import { bytes } from "../format.js";

const TONES = { added: "good", removed: "bad", "in place": "info" };

export function Plan({ plan, busy, onSave, onCancel }) {
  const { changes, server, memory, diff } = plan;
  const nothing = changes.length === 0 && server.length === 0;
  return html`<section class="card stack plan" aria-label="Plan">
    <h2>What this change does</h2>
    ${diff === "" && html`<p class="small">The file does not change.</p>`}
    ${nothing && diff !== "" && html`<p class="small">Only the file changes. No model is affected.</p>`}
    <ul class="plan-changes">
      ${changes.map((change) => html`<${Change} key=${change.id} change=${change} />`)}
      ${server.length > 0 && html`<li><span class="badge info">server</span> changes in place: ${server.join(", ")}</li>`}
    </ul>
    ${memory.more_bytes > 0 && html`<p class="small">Needs about ${bytes(memory.more_bytes)} more; in use:
      ${bytes(memory.used_bytes)}${memory.budget_bytes === null ? "" : ` of ${bytes(memory.budget_bytes)}`}.</p>`}
    ${memory.fits === false && html`<div class="notice warn"><strong>More than the memory budget</strong>
      <span>Idle models are unloaded to make room. If that is not enough, loading fails.</span></div>`}
    ${diff !== "" && html`<${Diff} text=${diff} />`}
    <div class="row wrap"><button type="button" class="button primary" aria-disabled=${busy} disabled=${diff === ""}
        onClick=${() => !busy && onSave()}>Save</button>
      <button type="button" class="button" onClick=${onCancel}>Cancel</button></div>
  </section>`;
}

function Change({ change }) {
  const size = change.expected_bytes !== null && change.loads ? `; about ${bytes(change.expected_bytes)}` : "";
  return html`<li><span class="badge ${TONES[change.does] ?? "warn"}">${change.kind}</span>
    ${" "}<strong class="break">${change.id}</strong> ${change.says}${change.loads && change.does === "added" ? "; loads at once" : ""}${size}
    ${change.obstacle && html`<p class="bad-text">It will not load: ${change.obstacle}</p>`}</li>`;
}

export function Diff({ text }) {
  const lines = text.split("\n").slice(2).filter((line, index, all) => line !== "" || index < all.length - 1);
  return html`<div class="excerpt" role="group" aria-label="Changed lines" tabindex="0"><table><tbody>
    ${lines.map((line, index) => html`<tr key=${index} class=${{ "+": "added", "-": "removed", "@": "muted" }[line[0]] ?? ""}>
      <td>${line || " "}</td></tr>`)}
  </tbody></table></div>`;
}
