/** Shows /openapi.json. */

import { html } from "./dom.js";

export function ReferencePage({ models, status, api }) {
  return html`<div class="page"><h1>API</h1><div class="empty">Not written yet.</div></div>`;
}
