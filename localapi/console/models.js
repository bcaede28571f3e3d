/** What the server does now: each model, the memory, the manifest. */

import { html } from "./dom.js";

export function ModelsPage({ models, status, api }) {
  return html`<div class="page"><h1>Models</h1>
    ${(models ?? []).map((model) => html`<div class="card" key=${model.id}>${model.id} <span class="badge">${model.state}</span></div>`)}
  </div>`;
}
