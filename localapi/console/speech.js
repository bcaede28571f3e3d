/** Speaks with models. */

import { html } from "./dom.js";

export function SpeechPage({ models, status, api }) {
  return html`<div class="page"><h1>Speech</h1><div class="empty">Not written yet.</div></div>`;
}
