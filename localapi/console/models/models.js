/** State of the server: models, memory, manifest. */

import { CopyButton } from "../copy_button.js";
import { html, useState } from "../dom.js";
import { capitalized, plural, useClock } from "../format.js";
import { MANY, hasWords } from "../words.js";
import { Manifest } from "./manifest.js";
import { Model } from "./model.js";
import { Overview } from "./overview.js";

export function ModelsPage({ models, status, api, server, pageOf, active }) {
  useClock(active);
  const [words, setWords] = useState("");
  const now = Date.now() / 1000 + server.skew;
  if (models === null) return html`<${Waiting} server=${server} />`;
  const shown = models.length > MANY ? models.filter((model) => hasWords(model, words)) : models;
  return html`<div class="page models">
    <div class="page-head"><h1>Models</h1><${BaseUrl} /></div>
    ${!server.admin && html`<div class="notice info"><strong>Limited view</strong><span>This key has no admin right, so memory,
      requests, the manifest, the log and the buttons are hidden. The models below are those that it may use.</span></div>`}
    ${status?.warnings.map((warning) => html`<div class="notice warn" key=${warning}><strong>Warning</strong>
      <span>${warning}</span></div>`)}
    ${status && html`<${Overview} status=${status} samples=${server.samples} now=${now} />
      <${Manifest} status=${status} api=${api} now=${now} />`}
    ${models.length === 0 && html`<div class="empty"><strong>No models</strong>
      <p>Add one to the manifest and save it, or run <code>localapi add demo</code>; it appears here at once.</p></div>`}
    ${models.length > MANY && html`<label class="field models-search"><span class="sr">Find a model</span>
      <input class="input" type="search" value=${words} placeholder="Find a model by name, backend or state"
        onInput=${(event) => setWords(event.target.value)} /></label>`}
    ${models.length > 0 && shown.length === 0 && html`<div class="empty"><strong>No model matches all of these words.</strong></div>`}
    ${[...Map.groupBy(shown, (model) => model.kind)].map(([kind, some]) => html`<${Group} key=${kind} name=${capitalized(kind)}
      models=${some} page=${pageOf[kind]} now=${now} api=${api} admin=${server.admin} />`)}
    ${status?.retiring.length > 0 && html`<${Retiring} instances=${status.retiring} />`}
  </div>`;
}

/** Address for clients. */
function BaseUrl() {
  const url = `${location.origin}/v1`;
  return html`<p class="row small muted">API at <code class="break">${url}</code>
    <${CopyButton} label="Copy" title="Copy the base_url" textOf=${() => url} /></p>`;
}

function Waiting({ server }) {
  const { name, error } = server.connection;
  if (name === "refused") {
    return html`<div class="page"><div class="page-head"><h1>Models</h1></div>
      <div class="empty"><strong>Locked</strong><p>This server requires an API key.</p></div></div>`;
  }
  const failed = name === "lost";
  return html`<div class="page"><div class="page-head"><h1>Models</h1></div>
    <div class="empty">${failed
      ? html`<strong>No data yet</strong><p>${error?.message}</p>`
      : html`<span class="spinner" aria-hidden="true"></span><p>Contacting the server…</p>`}</div></div>`;
}

function Group({ name, models, page, api, admin, now }) {
  return html`<section class="stack" aria-label="${name} models">
    <h2 class="group">${name} <span class="muted">${models.length}</span></h2>
    ${models.map((model) => html`<${Model} key=${model.id} model=${model} page=${page} api=${api} admin=${admin} now=${now} />`)}
  </section>`;
}

function Retiring({ instances }) {
  return html`<section class="stack" aria-label="Ending">
    <h2 class="group">Ending</h2>
    ${instances.map((instance) => html`<div class="card row wrap" key=${`${instance.id}-${instance.since_revision}`}>
      <strong class="break">${instance.id}</strong><span class="badge warn">of revision ${instance.since_revision}</span>
      <span class="small muted">ends after ${plural(instance.leases, "running request")}</span></div>`)}
  </section>`;
}
