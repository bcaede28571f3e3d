/** Chats with models. */

import { html } from "./dom.js";

export function ChatPage({ models, status, api }) {
  return html`<div class="page"><h1>Chat</h1><div class="empty">Not written yet.</div></div>`;
}
