/** A short list of models to begin with, and which of them fit this machine. */

import { html, useEffect, useState } from "../dom.js";
import { Failure } from "../failure.js";
import { bytes } from "../format.js";

/** `onAdd` is called with the kind, the id and the options of the entry that a model would have. */
export function FirstModels({ api, onAdd }) {
  const [open, setOpen] = useState(false);
  const [list, setList] = useState(null);
  const [error, setError] = useState(null);
  useEffect(() => {
    if (open) api.get("/admin/first-models").then(setList, setError);
  }, [open]);
  return html`<details class="first-models" onToggle=${(event) => setOpen(event.currentTarget.open)}>
    <summary>Models to start with</summary>
    <div class="stack">
      ${error && html`<div role="alert"><${Failure} error=${error} /></div>`}
      ${list && html`<p class="small muted">This machine has ${bytes(list.usable_bytes)} for models. Sizes are approximate.</p>
        ${list.models.map((model) => html`<${Offer} key=${model.id} model=${model} onAdd=${onAdd} />`)}`}
    </div>
  </details>`;
}

function Offer({ model, onAdd }) {
  const { id, kind, backend, repository, entries } = model;
  const download = model.downloaded ? "downloaded" : `will download ${bytes(model.download_bytes)}`;
  const add = () => onAdd(kind, id, { backend, path: repository });
  return html`<div class="card row wrap">
    <div class="grow"><strong class="break">${id}</strong> <span class="small muted">${kind}${model.suggested ? " · suggested" : ""}</span>
      <p class="small break">${model.good_at}</p>
      <p class="small muted break">${repository} · ${download} · needs ${bytes(model.memory_bytes)} of memory · ${model.licence}</p>
      ${!model.fits && html`<p class="small">Too large for this machine.</p>`}</div>
    ${entries.length > 0
      ? html`<span class="small muted">in the manifest as ${entries.join(", ")}</span>`
      : html`<button class="button small" aria-label="Add ${id}" onClick=${add}>Add</button>`}
  </div>`;
}
