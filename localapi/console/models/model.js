/** One model: how it is, and what can be done with it. */

import { html, useState } from "../dom.js";
import { bytes, duration, plural, speed, stateName } from "../format.js";
import { Icon } from "../icons.js";

const TONES = { ready: "good", loading: "info", failed: "bad", closed: "warn", unloaded: "" };

/** `page` is the id of the page to try it on, if its kind has one. */
export function Model({ model, page, api, admin, now }) {
  const [act, state] = useActions(api, model.id);
  // Without the admin right, only the names of a pool's members are known.
  const members = model.place?.kind === "members" ? model.place.parts : model.members;
  return html`<article class="card model" aria-label=${model.id}>
    <div class="model-name">
      <h3 class="break">${model.id}</h3>
      <span class="badge ${TONES[model.state] ?? ""}">${stateOf(model)}</span>
      ${model.pinned_by && html`<span class="badge plain"><${Pin} />
        pinned ${model.pinned_by === "hand" ? "manually" : "by the manifest"}</span>`}
    </div>
    <div class="model-about">
      <p class="small muted break"><${What} model=${model} /></p>
      ${model.description && html`<p class="small break"><bdi>${model.description}</bdi></p>`}
    </div>
    ${admin && model.leases !== undefined && html`<${Figures} model=${model} />`}
    <div class="model-actions">
      ${admin && model.leases !== undefined && !members && !model.peer && html`<${Actions} model=${model} act=${act} busy=${state.busy} />`}
      ${admin && model.leases !== undefined && !model.peer && html`<a class="button small" href="#manifest/${model.kind}/${encodeURIComponent(model.id)}"
        aria-label="Edit ${model.id}">Edit</a>`}
      ${page && html`<a class="button small" href="#${page}/${encodeURIComponent(model.id)}" aria-label="Try ${model.id}">Try</a>`}
    </div>
    ${model.progress && html`<${Progress} progress=${model.progress} />`}
    ${model.swap && html`<${Swap} swap=${model.swap} now=${now} />`}
    ${members && html`<${Members} members=${members} now=${now} />`}
    ${model.variants?.length > 0 && html`<${Variants} variants=${model.variants} />`}
    ${model.healthy === false && html`<div class="notice bad model-wide"><strong>Unhealthy</strong>
      <span class="break">${model.unhealthy_reason}</span></div>`}
    ${state.error && html`<div class="notice bad model-wide" role="alert"><strong>${state.error.what} failed</strong>
      <span>${state.error.message}</span></div>`}
    ${model.last_error && !state.error && model.state !== "loading" && html`<div class="notice ${model.state === "failed" ? "bad" : "warn"} model-wide"><strong>Last error</strong>
      <span>${model.last_error}</span></div>`}
    ${admin && model.leases !== undefined && html`<${Facts} parts=${facts(model, now)} />`}
  </article>`;
}

function stateOf({ state, download_bytes: size }) {
  return stateName(state) + (size ? ` · ${bytes(size)}` : "");
}

function Pin() {
  return html`<span class="pin"><${Icon} name="pin" /></span>`;
}

function What({ model }) {
  const aliases = model.aliases?.length > 0 ? ` · ${model.aliases.length > 1 ? "aliases" : "alias"} ${model.aliases.join(", ")}` : "";
  const at = model.place?.at ?? model.peer;
  const place = at ? ` · ${model.place?.kind ?? "peer"} ${at}` : "";
  return html`${model.backend}${model.path && html` · <span class="mono">${model.path}</span>`}${place}${aliases}`;
}

function Figures({ model }) {
  const figures = [["Memory", bytes(model.memory_bytes)], ["Running", model.leases], ["Waiting", model.waiting]];
  if (model.tokens_per_second !== null) figures.push(["Tokens/s", speed(model.tokens_per_second)]);
  return html`<dl class="figures">${figures.map(([name, value]) => html`<div key=${name}><dt>${name}</dt>
    <dd class="number ${value === 0 || value === "–" || value === "0" ? "muted" : ""}">${value}</dd></div>`)}</dl>`;
}

function Progress({ progress: { phase, done, total } }) {
  const share = total > 0 ? ` · ${bytes(done)} of ${bytes(total)} · ${Math.floor((100 * done) / total)} %` : "";
  return html`<div class="model-wide stack tight">
    <p class="small"><span class="spinner" aria-hidden="true"></span> ${phase}${share}</p>
    ${total > 0 && html`<progress max=${total} value=${done} aria-label="Loading: ${phase}"></progress>`}
  </div>`;
}

/** The replacement of a model, which answers until it is loaded. */
function Swap({ swap, now }) {
  const what = swap.path ?? swap.backend;
  if (swap.state === "loading") {
    const phase = swap.progress ? `: ${swap.progress.phase}` : "";
    return html`<p class="small model-wide break"><span class="spinner" aria-hidden="true"></span>
      ${" "}Loading its replacement, <span class="mono">${what}</span>${phase}</p>`;
  }
  const next = swap.next_try_at > now ? ` Next try in ${duration(swap.next_try_at - now)}.` : "";
  return html`<div class="notice warn model-wide"><strong>Not replaced</strong>
    <span class="break"><span class="mono">${what}</span> did not load, so this model stays in use: ${swap.error}${next}</span></div>`;
}

function Actions({ model, act, busy }) {
  // What a button does changes and the button stays, so that it keeps the focus; a disabled one would lose it.
  // The second half of a double click is for nothing: it would end what the first began.
  const button = (what, path, more = {}) => html`<button class="button small" aria-disabled=${busy === path}
    aria-label="${what} ${model.id}" onClick=${(event) => busy !== path && event.detail < 2 && act(what, path)} ...${more}>
    ${busy === path && html`<span class="spinner" aria-hidden="true"></span>`}${what}</button>`;
  return html`
    ${model.state === "ready" ? button("Unload", "unload", { key: "load" })
      : model.state === "loading" ? button("Stop loading", "unload", { key: "load" }) : button("Load", "load", { key: "load" })}
    ${model.pinned_by === "hand" && button("Unpin", "unpin", { key: "pin" })}
    ${model.pinned_by === null && button("Pin", "pin", { key: "pin", title: "Load it and keep it loaded" })}`;
}

/** Members of a pool: parts of its place, or names. */
function Members({ members, now }) {
  const line = (member) => {
    if (member.name === undefined) return member;
    const rest = member.rests_until > now ? ` for ${duration(member.rests_until - now)}` : "";
    const away = member.away ? `; unavailable${rest}: ${member.away}` : "";
    return `${member.name}: ${stateName(member.state)}, ${plural(member.requests ?? 0, "request")}${away}`;
  };
  return html`<ul class="small model-wide">${members.map((member) => html`<li key=${member.name ?? member} class="break">
    ${line(member)}</li>`)}</ul>`;
}

/** Its further names, which have their own defaults and locks. */
function Variants({ variants }) {
  const line = ({ id, aliases, description }) => [[id, ...aliases].join(", "), description].filter(Boolean).join(": ");
  return html`<ul class="small model-wide" aria-label="Variants">${variants.map((variant) => html`<li key=${variant.id} class="break">
    ${line(variant)}</li>`)}</ul>`;
}

function Facts({ parts }) {
  return parts.length > 0 && html`<p class="tiny muted model-wide">${parts.join(" · ")}</p>`;
}

/** Return the details for the small print. */
function facts(model, now) {
  const parts = [];
  if (model.ready_since) parts.push(`ready for ${duration(now - model.ready_since)}`);
  if (model.since_revision > 1) parts.push(`since revision ${model.since_revision}`);
  if (model.context_length) parts.push(`${model.context_length.toLocaleString("en")} tokens of context`);
  if (model.voices?.length) parts.push(plural(model.voices.length, "voice"));
  if (model.place?.replicas) {
    const { max, held_back: heldBack } = model.place.replicas;
    parts.push(`${plural(model.place.parts.length, "replica")} of at most ${max}${heldBack ? ` (${heldBack})` : ""}`);
  }
  if (model.loads > 1) parts.push(`loaded ${model.loads} times`);
  if (model.worker_deaths) parts.push(plural(model.worker_deaths, "unexpected worker exit"));
  if (model.restarts) parts.push(plural(model.restarts, "restart"));
  if (model.requests?.prompt_tokens_total) {
    parts.push(`reading prompts: ${model.requests.prompt_tokens_done} of ${model.requests.prompt_tokens_total} tokens`);
  }
  if (model.requests?.sound_seconds_done) {
    const { sound_seconds_done: done, sound_seconds_total: total } = model.requests;
    parts.push(`transcribing: ${duration(done)} of ${duration(total)}`);
  }
  if (model.cooling_down_until && model.cooling_down_until > now) {
    parts.push(`next attempt in ${duration(model.cooling_down_until - now)}, after ${model.failures_in_a_row} failures`);
  }
  const processes = (model.place?.parts ?? []).filter((part) => part.kind !== "member");
  if (processes.length > 0) parts.push(processes.map(partOf).join(", "));
  else if (model.place?.pid) parts.push(`process ${model.place.pid}`);
  return parts;
}

/** A replica or a rank: its number, process and state. */
function partOf({ kind, name, pid, at, state }) {
  const node = at && !at.includes(":") ? ` on ${at}` : ""; // a rank that is on no node has its address there
  const process = pid ? `process ${pid}${node}, ` : "";
  return `${kind} ${name}: ${process}${state}`;
}

/** A function that asks for something, and how it goes: `busy` is the path that is being asked for. */
function useActions(api, id) {
  const [state, setState] = useState({});
  const act = async (what, path) => {
    setState({ busy: path });
    try {
      await api.post(`/admin/models/${encodeURIComponent(id)}/${path}`);
      setState((now) => (now.busy === path ? {} : now));
    } catch (error) {
      setState((now) => (now.busy === path ? { error: { what, message: error.message } } : now));
    }
  };
  return [act, state];
}
