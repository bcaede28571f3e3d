/** Measurements of an answer or of audio, in one line. */

import { html } from "./dom.js";

/** `facts` are pairs of what stands there and what that is. */
export function FactLine({ facts }) {
  return html`<dl class="measures">
    ${facts.map(
      ([text, title]) =>
        html`<div key=${title}>
          <dt class="sr">${title}</dt>
          <dd title=${title}>${text}</dd>
        </div>`,
    )}
  </dl>`;
}
