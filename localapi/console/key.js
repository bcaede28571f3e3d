/** Asks for the API key that a server wants. */

import { html, useEffect, useRef } from "./dom.js";

export function KeyDialog({ refusal, wrong, onKey }) {
  const dialog = useRef(null);
  const field = useRef(null);
  useEffect(() => { dialog.current.showModal(); }, []);
  const submit = (event) => {
    event.preventDefault();
    const key = field.current.value.trim();
    if (key) onKey(key);
  };
  return html`<dialog ref=${dialog} aria-labelledby="key-title" onCancel=${(event) => event.preventDefault()}>
    <form class="stack" onSubmit=${submit}>
      <h2 id="key-title">API key</h2>
      <p class="small muted">This server requires an API key. The page keeps it in memory until you close or reload it, and
        stores it nowhere.</p>
      ${wrong && html`<div class="notice bad" role="alert"><strong>This key was not accepted</strong>
        <span>${refusal.message}</span></div>`}
      <label class="field"><span>Key</span>
        <input class="input" type="password" autocomplete="off" spellcheck=${false} autofocus ref=${field}
          aria-invalid=${wrong ? "true" : undefined} /></label>
      <div class="row"><button class="button primary grow" type="submit">Continue</button></div>
    </form>
  </dialog>`;
}
