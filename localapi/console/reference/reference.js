/** Shows /openapi.json: every endpoint, what it takes, what it gives, and a request to begin with. */

import { Failure } from "../failure.js";
import { html, useEffect, useState } from "../dom.js";
import { capitalized } from "../format.js";
import { Endpoint } from "./endpoint.js";

/** The document's operations as [tag, operations], in the document's order. */
function groupsOf(document, wanted) {
  const words = wanted.toLowerCase().split(/\s+/).filter(Boolean);
  const operations = Object.entries(document.paths)
    .flatMap(([path, methods]) =>
      Object.entries(methods).map(([method, operation]) => ({ method: method.toUpperCase(), path, operation })),
    )
    .filter(({ method, path, operation }) => {
      const text = `${method} ${path} ${operation.summary ?? ""} ${operation.description ?? ""}`.toLowerCase();
      return words.every((word) => text.includes(word));
    });
  return [...Map.groupBy(operations, ({ operation }) => operation.tags?.[0] ?? "other")];
}

/** The document, asked for again with each key. */
function useDocument(api, round) {
  const [state, setState] = useState({ document: null, error: null });
  useEffect(() => {
    const aborter = new AbortController();
    api.get("/openapi.json", { signal: aborter.signal }).then(
      (document) => setState({ document, error: null }),
      (error) => !aborter.signal.aborted && setState({ document: null, error }),
    );
    return () => aborter.abort();
  }, [round]);
  return state;
}

/** The page. */
export function ReferencePage({ models, api, server }) {
  const { document, error } = useDocument(api, server.round);
  const [wanted, setWanted] = useState("");
  const groups = document === null ? [] : groupsOf(document, wanted);
  return html`<div class="page reference">
    <div class="page-head">
      <h1>API</h1>
      ${document && html`<a class="button" href="/openapi.json" download="openapi.json">openapi.json</a>`}
    </div>
    ${error && html`<${Failure} error=${error} />`}
    ${
      document &&
      html`<p class="muted">
          ${document.info.description} For OpenAI's clients, set <code>base_url</code> to${" "}
          <code class="break">${location.origin}/v1</code>.
        </p>
        <label class="field reference-search">
          <span class="sr">Find an endpoint</span>
          <input
            class="input"
            type="search"
            placeholder="Find an endpoint: speech, /v1/models, POST"
            value=${wanted}
            onInput=${(event) => setWanted(event.target.value)}
          />
        </label>`
    }
    ${document && groups.length === 0 && html`<div class="empty"><strong>No endpoint matches all of these words.</strong></div>`}
    ${groups.map(
      ([name, operations]) =>
        html`<section key=${name} class="reference-group" aria-label=${name}>
          <h2>${capitalized(name)}</h2>
          ${operations.map(
            (each) =>
              html`<${Endpoint}
                key=${`${each.method} ${each.path}`}
                ...${each}
                document=${document}
                models=${models ?? []}
                keyed=${api.hasKey}
              />`,
          )}
        </section>`,
    )}
  </div>`;
}
