/** A control with its name above it, and what there is to know about it below. */

import { html } from "./dom.js";

/** `id` is that of the control; one with a hint names it by aria-describedby: `${id}-hint`. */
export function Field({ id, label, hint, children }) {
  return html`<div class="field">
    <label for=${id}>${label}</label>
    ${children} ${hint && html`<span class="hint" id=${`${id}-hint`}>${hint}</span>`}
  </div>`;
}
