/** The server as a whole: memory, requests, speed, what runs. */

import { html } from "../dom.js";
import { bytes, duration, plural, speed } from "../format.js";
import { Sparkline } from "./sparkline.js";

export function Overview({ status, samples, now }) {
  const { memory, models } = status;
  const latest = {
    running: sum(models, "leases"), waiting: sum(models, "waiting"), tokens: sum(models, "tokens_per_second"),
  };
  const loaded = models.filter((model) => model.state === "ready").length;
  return html`<div class="overview">
    <${Memory} memory=${memory} values=${samples.map((sample) => sample.memory)} />
    <${Figure} name="Requests" value=${latest.running} note=${`running, ${latest.waiting} waiting`}>
      <${Sparkline} values=${samples.map((sample) => sample.running)} least=${2} label="Running requests, last minutes" /><//>
    <${Figure} name="Speed" value=${speed(latest.tokens)} note="tokens/s">
      <${Sparkline} values=${samples.map((sample) => sample.tokens)} least=${10} label="Tokens per second, last minutes" /><//>
    <${Figure} name="Server" value=${duration(now - status.started_at)} note="up">
      <p class="tiny muted">${loaded} of ${plural(models.length, "model")} loaded<br />
        revision ${status.revision}, localapi ${status.version}</p><//>
  </div>`;
}

function Figure({ name, value, note, children }) {
  return html`<section class="card figure" aria-label=${name}>
    <h2 class="figure-name">${name}</h2>
    <p class="figure-value number">${value} <span>${note}</span></p>
    ${children}
  </section>`;
}

function Memory({ memory, values }) {
  const { budget_bytes: budget, used_bytes: used, waiting } = memory;
  const note = budget === null ? "no budget" : `of ${bytes(budget)}`;
  return html`<${Figure} name="Memory" value=${bytes(used)} note=${note}>
    ${budget !== null && html`<progress class=${used > budget ? "over" : ""} max=${budget} value=${used}
      aria-label="Memory in use"></progress>`}
    ${waiting.length > 0 && html`<p class="tiny">Waiting for memory: ${waiting.join(", ")}</p>`}
    <${Sparkline} values=${values} least=${budget ?? 2 ** 28} label="Memory of models, last minutes" /><//>`;
}

function sum(models, key) {
  return models.reduce((total, model) => total + (model[key] ?? 0), 0);
}
