/** Error of a request, in the server's words. */

import { html } from "./dom.js";

export function Failure({ error }) {
  const facts = [error.status >= 400 ? error.status : null, error.code, error.param, error.requestId].filter(Boolean);
  return html`<div class="notice bad">
    <p>${error.message}</p>
    ${facts.length > 0 && html`<p class="tiny muted">${facts.join(" · ")}</p>`}
  </div>`;
}
