/** What happened, newest first. */

import { html } from "./dom.js";

export function EventsPage({ records }) {
  return html`<div class="page"><h1>Events</h1><div class="empty">Not written yet.</div></div>`;
}
