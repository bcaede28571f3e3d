/** A control with its name above it, and what there is to know about it below. */

import { html } from "./dom.js";
import { capitalized } from "./format.js";

/** `id` is that of the control; one with a hint names it by aria-describedby: `${id}-hint`. */
export function Field({ id, label, hint, children }) {
  return html`<div class="field">
    <label for=${id}>${label}</label>
    ${children} ${hint && html`<span class="hint" id=${`${id}-hint`}>${hint}</span>`}
  </div>`;
}

/** The choice of a model, `byKind` under the name of each kind. `onChoose` gets its id. */
export function ModelField({ id, model, offered, byKind = false, onChoose }) {
  const options = (some) => some.map((each) => html`<option key=${each.id} value=${each.id}>${each.id}</option>`);
  return html`<${Field} id=${id} label="Model">
    <select id=${id} class="input" value=${model?.id} onChange=${(event) => onChoose(event.target.value)}>
      ${
        byKind
          ? [...Map.groupBy(offered, ({ kind }) => kind)].map(
              ([kind, some]) => html`<optgroup key=${kind} label=${capitalized(kind)}>${options(some)}</optgroup>`,
            )
          : options(offered)
      }
    </select>
  <//>`;
}
