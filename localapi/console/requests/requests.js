/** The latest requests to models and their replies, if the manifest has them kept, and sending one again. */

import { CopyButton } from "../copy_button.js";
import { html, useEffect, useState } from "../dom.js";
import { Failure } from "../failure.js";
import { bytes, clock } from "../format.js";

const ASK_MS = 2000;

export function RequestsPage({ api, server, active }) {
  const [found, setFound] = useState(null);
  const [error, setError] = useState(null);
  const [shown, setShown] = useState(null);
  const read = async () => {
    try {
      setFound(await api.get("/admin/captures"));
      setError(null);
    } catch (failure) {
      setError(failure);
    }
  };
  useEffect(() => {
    if (!active || !server.admin) return undefined;
    read();
    const timer = setInterval(read, ASK_MS);
    return () => clearInterval(timer);
  }, [active, server.admin, server.round]);
  const clear = async () => {
    setShown(null);
    setFound(await api.post("/admin/captures/clear"));
  };
  return html`<div class="page requests">
    <div class="page-head"><h1>Requests</h1>
      ${found?.captures.length > 0 && html`<button class="button small" onClick=${clear}>Clear</button>`}</div>
    ${error && html`<${Failure} error=${error} />`}
    ${found && !found.enabled && html`<div class="empty"><strong>Requests are not captured</strong>
      <p>Add <code>capture: {}</code> to <code>server</code> in the manifest to keep the latest requests and replies in memory.</p></div>`}
    ${found?.enabled && found.captures.length === 0 && html`<div class="empty"><strong>No requests yet</strong>
      <p>Requests to models appear here as they arrive.</p></div>`}
    ${found?.captures.length > 0 && html`<div class="scroll" tabindex="0" role="group" aria-label="Latest requests"><table class="table">
      <thead><tr><th><span class="sr">Show</span></th><th>Time</th><th>Path</th><th>Model</th><th>Key</th><th>Status</th><th>Duration</th><th>Size</th></tr></thead>
      <tbody>${found.captures.map((each) => html`<${Row} key=${each.id} capture=${each} isShown=${shown === each.id}
        onShow=${() => setShown(shown === each.id ? null : each.id)} />`)}</tbody></table></div>`}
    ${shown && html`<${Whole} key=${shown} id=${shown} api=${api} />`}
  </div>`;
}

function Row({ capture, isShown, onShow }) {
  const { id, at, path, model, key, status, seconds, request_bytes: asked, reply_bytes: said } = capture;
  const tone = status === null ? "info" : status < 400 ? "good" : "bad";
  return html`<tr>
    <td><button class="button small" aria-expanded=${isShown} aria-label="Show ${id}" onClick=${onShow}>Show</button></td>
    <td class="number">${clock(at)}</td><td class="mono">${path}</td><td class="break">${model || "–"}</td><td>${key ?? "–"}</td>
    <td><span class="badge ${tone}">${status ?? "running"}</span></td>
    <td class="number">${seconds === null ? "–" : `${seconds.toFixed(2)} s`}</td><td class="number">${bytes(asked)} / ${bytes(said)}</td>
  </tr>`;
}

/** One request with its reply, and what came back when it was sent again. */
function Whole({ id, api }) {
  const [whole, setWhole] = useState(null);
  const [again, setAgain] = useState({});
  const [error, setError] = useState(null);
  useEffect(() => { api.get(`/admin/captures/${encodeURIComponent(id)}`).then(setWhole, setError); }, [id]);
  if (error) return html`<${Failure} error=${error} />`;
  if (!whole) return html`<p class="small"><span class="spinner" aria-hidden="true"></span></p>`;
  const { capture, request, reply } = whole;
  const canReplay = request.text !== null && !request.cut && request.content_type.startsWith("application/json");
  const replay = async () => {
    setAgain({ busy: true });
    try {
      const answer = await api.request("POST", capture.path, JSON.parse(request.text));
      const type = answer.headers.get("content-type") ?? "";
      setAgain({ text: /json|text/.test(type) ? await answer.text() : `${type}, ${bytes((await answer.blob()).size)}`, type });
    } catch (failure) {
      setAgain({ error: failure });
    }
  };
  return html`<section class="card stack" aria-label="Request ${id}">
    <div class="card-head"><h2 class="grow break">${capture.path}</h2>
      <button class="button small" disabled=${!canReplay} aria-disabled=${again.busy === true} onClick=${() => !again.busy && replay()}>
        ${again.busy && html`<span class="spinner" aria-hidden="true"></span>`}Send again</button></div>
    <${Body} name="Request" body=${request} />
    <${Body} name="Reply" body=${reply} />
    ${again.error && html`<${Failure} error=${again.error} />`}
    ${again.text !== undefined && html`<${Body} name="New reply" body=${{ text: again.text, content_type: again.type, cut: false, bytes: again.text.length }} />`}
  </section>`;
}

function Body({ name, body }) {
  const text = readable(body);
  return html`<div class="stack tight" role="group" aria-label=${name}><div class="row"><h3 class="grow">${name}</h3>
      ${text !== null && html`<${CopyButton} label="Copy" title="Copy the ${name.toLowerCase()}" textOf=${() => body.text} />`}</div>
    ${text === null ? html`<p class="small muted">${bytes(body.bytes)} of ${body.content_type || "an unknown type"}, not kept</p>`
      : html`<pre class="code" tabindex="0" aria-label="${name}, text">${text}</pre>`}
    ${body.cut && text !== null && html`<p class="small muted">Truncated; ${bytes(body.bytes)} in total.</p>`}</div>`;
}

/** JSON with line breaks; other text as it is. */
function readable({ text, content_type: type, cut }) {
  if (text === null || cut || !type.startsWith("application/json")) return text;
  try {
    return JSON.stringify(JSON.parse(text), null, 2);
  } catch {
    return text;
  }
}
