/** Usage of models and keys: charts of hours or days, and totals. */

import { html, useEffect, useState } from "../dom.js";
import { Failure } from "../failure.js";
import { bytes, capitalized, speed } from "../format.js";
import { Chart } from "./chart.js";

const ASK_MS = 60_000;
const HOUR = 3600;
const SPANS = [
  { id: "day", name: "24 hours", from: "hours", count: 24 },
  { id: "week", name: "7 days", from: "hours", count: 168 },
  { id: "quarter", name: "90 days", from: "days", count: 90 },
];

export function UsagePage({ api, server, active }) {
  const [found, setFound] = useState(null);
  const [error, setError] = useState(null);
  const [span, setSpan] = useState(SPANS[0]);
  useEffect(() => {
    if (!active || !server.admin) return undefined;
    const read = () => api.get("/admin/history").then((told) => { setFound(told); setError(null); }, setError);
    read();
    const timer = setInterval(read, ASK_MS);
    return () => clearInterval(timer);
  }, [active, server.admin, server.round]);
  return html`<div class="page usage">
    <div class="page-head"><h1>Usage</h1>
      <div class="segments" role="group" aria-label="Time">${SPANS.map((each) => html`<button key=${each.id}
        class="button small" aria-pressed=${each === span} onClick=${() => setSpan(each)}>${each.name}</button>`)}</div></div>
    ${error && html`<${Failure} error=${error} />`}
    ${!found && !error && html`<p class="row small muted"><span class="spinner" aria-hidden="true"></span>Contacting the server…</p>`}
    ${found && !found.enabled && html`<div class="empty"><strong>Usage is not recorded</strong>
      <p>The manifest has <code>history: false</code> in <code>server</code>.</p></div>`}
    ${found?.enabled && html`<${Shown} span=${span} periods=${slots(found[span.from], span, Date.now() / 1000 + server.skew)} />`}
  </div>`;
}

/** One period for each hour or day of a span, the last one being now; those in which nothing was done are empty. */
function slots(known, { from, count }, now) {
  const empty = (start) => ({ start, memory_bytes: 0, models: {}, keys: {} });
  if (from === "hours") {
    const by = new Map(known.map((period) => [period.start, period]));
    const last = Math.floor(now / HOUR) * HOUR;
    return Array.from({ length: count }, (_, index) => last - (count - 1 - index) * HOUR).map((start) => by.get(start) ?? empty(start));
  }
  // Days begin when the server's do, and not all are equally long.
  const dayOf = (start) => Math.round((now - start - 12 * HOUR) / (24 * HOUR));
  const by = new Map(known.map((period) => [dayOf(period.start), period]));
  return Array.from({ length: count }, (_, index) => count - 1 - index).map((ago) => by.get(ago) ?? empty(now - ago * 24 * HOUR));
}

function Shown({ span, periods }) {
  const total = (what) => periods.map(({ start, models }) => ({ start, value: sum(Object.values(models), what) }));
  const paces = periods.map(({ start, models }) => ({ start, value: pace(totals([models])) }));
  const memory = periods.map(({ start, memory_bytes: value }) => ({ start, value }));
  const models = byName(periods, "models");
  const keys = byName(periods, "keys");
  const unit = span.from === "hours" ? "hour" : "day";
  return html`<div class="usage-charts">
      <${Chart} name="Requests" unit=${unit} values=${total("requests")} show=${count} />
      <${Chart} name="Tokens generated" unit=${unit} values=${total("completion_tokens")} show=${count} />
      <${Chart} name="Tokens per second" unit=${unit} values=${paces} show=${speed} isRate=${true} />
      <${Chart} name="Memory" unit=${unit} values=${memory} show=${bytes} isRate=${true} />
    </div>
    <${Sums} title="Models" name="Model" rows=${models} />
    ${keys.length > 0 && html`<${Sums} title="API keys" name="Key" rows=${keys} />`}`;
}

const HIDDEN = new Set(["answers", "token_seconds", "memory_bytes"]);

/** A row for each name, with the sums of all that was counted. */
function Sums({ title, name, rows }) {
  const columns = [...new Set(rows.flatMap(([, amounts]) => Object.keys(amounts)))].filter((what) => !HIDDEN.has(what));
  const paced = rows.some(([, amounts]) => pace(amounts) !== null);
  const held = rows.some(([, amounts]) => amounts.memory_bytes);
  return html`<section class="stack" aria-label=${title}>
    <h2 class="group">${title}</h2>
    ${rows.length === 0 ? html`<p class="small muted">No model was used or loaded in this period.</p>`
      : html`<div class="card scroll" tabindex="0" role="group" aria-label="${title}, sums"><table class="table">
      <thead><tr><th>${name}</th>${columns.map((what) => html`<th key=${what}>${capitalized(what.replaceAll("_", " "))}</th>`)}
        ${paced && html`<th>Tokens/s</th>`}${held && html`<th>Peak memory</th>`}</tr></thead>
      <tbody>${rows.map(([id, amounts]) => html`<tr key=${id}><td class="break"><bdi>${id}</bdi></td>
        ${columns.map((what) => html`<td key=${what} class="number">${count(amounts[what] ?? 0)}</td>`)}
        ${paced && html`<td class="number">${speed(pace(amounts))}</td>`}
        ${held && html`<td class="number">${amounts.memory_bytes ? bytes(amounts.memory_bytes) : "–"}</td>`}</tr>`)}</tbody>
    </table></div>`}
  </section>`;
}

function byName(periods, table) {
  const found = new Map();
  for (const period of periods) {
    for (const [name, amounts] of Object.entries(period[table])) found.set(name, [...(found.get(name) ?? []), amounts]);
  }
  return [...found].map(([name, all]) => [name, added(all)]).sort(([a], [b]) => a.localeCompare(b));
}

/** Sums by name of the count; of memory, the largest. */
function added(all) {
  const sums = {};
  for (const amounts of all) {
    for (const [what, amount] of Object.entries(amounts)) {
      sums[what] = what === "memory_bytes" ? Math.max(sums[what] ?? 0, amount) : (sums[what] ?? 0) + amount;
    }
  }
  return sums;
}

function totals(tables) {
  return added(tables.flatMap((table) => Object.values(table)));
}

function pace({ answers, token_seconds: seconds }) {
  return seconds ? answers / seconds : null;
}

function sum(all, what) {
  return all.reduce((total, amounts) => total + (amounts[what] ?? 0), 0);
}

function count(value) {
  return value.toLocaleString("en", { maximumFractionDigits: value < 100 ? 1 : 0 });
}
