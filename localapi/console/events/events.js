/** The server's log, newest first. */

import { html, useMemo, useState } from "../dom.js";
import { clock, plural } from "../format.js";

const TONES = { warning: "warn", error: "bad", critical: "bad", info: "" };
const LEVELS = [["info", "All levels"], ["warning", "Warnings and errors"], ["error", "Errors"]];
const RANKS = { info: 0, warning: 1, error: 2, critical: 3 };

export function EventsPage({ server, models }) {
  const [level, setLevel] = useState("info");
  const [model, setModel] = useState("");
  const [words, setWords] = useState("");
  const records = server.records;
  const shown = useMemo(() => records.filter(
    (record) => RANKS[record.level] >= RANKS[level] && (!model || record.model === model)
      && record.message.toLowerCase().includes(words.toLowerCase()),
  ), [records, level, model, words]);
  const names = useMemo(() => [...new Set([...(models ?? []).map(({ id }) => id), ...records.map((each) => each.model)])]
    .filter(Boolean), [records, models]);
  return html`<div class="page events">
    <div class="page-head"><h1>Events</h1>
      <p class="small muted">${records.length === shown.length ? plural(shown.length, "line")
        : `${shown.length} of ${plural(records.length, "line")}`}</p></div>
    <div class="filters">
      <label class="field"><span>Model</span><select class="input" value=${model} onChange=${(event) => setModel(event.target.value)}>
        <option value="">All models</option>${names.map((name) => html`<option key=${name} value=${name}>${name}</option>`)}</select></label>
      <label class="field"><span>Level</span><select class="input" value=${level} onChange=${(event) => setLevel(event.target.value)}>
        ${LEVELS.map(([value, name]) => html`<option key=${value} value=${value}>${name}</option>`)}</select></label>
      <label class="field"><span>Words</span><input class="input" type="search" value=${words} placeholder="reloaded, req_…"
        onInput=${(event) => setWords(event.target.value)} /></label>
    </div>
    ${shown.length === 0
      ? html`<${Nothing} admin=${server.admin} hasRecords=${records.length > 0} />`
      : html`<ol class="card log" aria-label="Lines of the log, newest first">${shown.map((record) => html`<${Line} key=${record.number} record=${record} />`)}</ol>`}
  </div>`;
}

function Nothing({ admin, hasRecords }) {
  const [said, why] = !admin ? ["The log is hidden", "The log needs a key with the admin right."]
    : hasRecords ? ["Nothing matches", "Choose other filters."]
      : ["Nothing has happened yet",
        "Loads, reloads, requests and errors appear here as they happen. The content of requests does not."];
  return html`<div class="empty"><strong>${said}</strong><p>${why}</p></div>`;
}

function Line({ record }) {
  const begins = [`${record.request_id}: `, `${record.model}: `].find((words) => record.message.startsWith(words)) ?? "";
  const said = record.message.slice(begins.length);
  return html`<li class="log-line ${TONES[record.level]}">
    <time class="mono muted" datetime=${new Date(record.time * 1000).toISOString()}>${clock(record.time)}</time>
    <span class="log-level">${record.level === "info" ? null : html`<span class="badge ${TONES[record.level]}">${record.level}</span>`}</span>
    <span class="log-model break">${record.model ?? ""}</span>
    <span class="log-said break">${said}
      ${record.exception && html` <code>${record.exception}</code>`}
      ${begins.startsWith("req_") && html` <span class="muted tiny mono">${record.request_id}</span>`}
      ${record.key && html` <span class="muted">key ${record.key}</span>`}</span>
  </li>`;
}
