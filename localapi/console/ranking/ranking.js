/** Tries models that find texts: a query, documents, and which of them fit it best. */

import { CopyButton } from "../copy_button.js";
import { html, useRef, useState } from "../dom.js";
import { FactLine } from "../fact_line.js";
import { Failure } from "../failure.js";
import { Field, ModelField } from "../field.js";
import { plural } from "../format.js";
import { Loading } from "../loading.js";
import { useSubject } from "../routes.js";
import { asCurl } from "../snippets.js";
import { wayOf } from "./scores.js";

const EXAMPLE = {
  model: null,
  query: "Where does the cat sleep?",
  documents: "The cat sleeps on the sofa.\nIt will rain tomorrow.\nDogs like to run in the park.",
  inputTypes: true,
};

/** The page. */
export function RankingPage({ models, api }) {
  const [asked, setAsked] = useState(EXAMPLE);
  const [found, setFound] = useState(null);
  const aborter = useRef(null);
  const offered = models ?? [];
  const model = offered.find((each) => each.id === asked.model) ?? offered[0] ?? null;
  const set = (changes) => setAsked((before) => ({ ...before, ...changes }));
  useSubject("ranking", (id) => set({ model: id }));
  const isBusy = found?.state === "waiting";

  if (models !== null && model === null) {
    return html`<div class="page">
      <div class="page-head"><h1>Ranking</h1></div>
      <div class="empty">
        <strong>The manifest has no embedding or rerank model.</strong>
        <p>
          Add one under <code>embedding</code> or <code>rerank</code>, or run
          ${" "}<code>localapi add sentence-transformers/all-MiniLM-L6-v2</code>; it appears here at once.
        </p>
      </div>
    </div>`;
  }
  const rank = async () => {
    const request = new AbortController();
    aborter.current = request;
    const documents = documentsOf(asked);
    const way = wayOf(model.kind);
    const bodies = way.bodies(model.id, asked.query.trim(), documents, asked.inputTypes);
    const begun = performance.now();
    const about = { model: model.id, kind: model.kind, path: way.path, bodies };
    setFound({ state: "waiting", ...about });
    let end;
    try {
      const sent = bodies.map((body) => api.request("POST", way.path, body, { signal: request.signal }));
      const replies = await Promise.all((await Promise.all(sent)).map((reply) => reply.json()));
      const scores = way.scores(replies);
      const scored = documents.map((text, index) => ({ text, index, score: scores[index] }));
      // Another server may leave out the worst.
      const best = scored.filter(({ score }) => score !== undefined).sort((a, b) => b.score - a.score);
      const tokens = replies.reduce((sum, { usage }) => sum + (usage?.total_tokens ?? 0), 0);
      end = { state: "complete", best, tokens };
    } catch (error) {
      end = request.signal.aborted ? { state: "stopped" } : { state: "failed", error };
      request.abort(); // the other of two requests is not needed then
    }
    if (aborter.current === request) {
      setFound({ ...about, ...end, seconds: (performance.now() - begun) / 1000 });
    }
  };
  const stop = () => aborter.current?.abort();
  return html`<div class="page ranking" onKeyDown=${(event) => event.key === "Escape" && isBusy && stop()}>
    <div class="page-head"><h1>Ranking</h1></div>
    <${RankingForm}
      asked=${asked}
      set=${set}
      offered=${offered}
      isKnown=${models !== null}
      model=${model}
      isBusy=${isBusy}
      rank=${rank}
      stop=${stop}
    />
    <${RankingResult} found=${found} model=${model} keyed=${api.hasKey} />
  </div>`;
}

function documentsOf({ documents }) {
  return documents
    .split("\n")
    .map((line) => line.trim())
    .filter((line) => line !== "");
}

function RankingForm({ asked, set, offered, isKnown, model, isBusy, rank, stop }) {
  const count = documentsOf(asked).length;
  const canRank = model !== null && asked.query.trim() !== "" && count > 0;
  const onSubmit = (event) => {
    event.preventDefault();
    if (isBusy) {
      stop();
    } else if (canRank) {
      rank();
    }
  };
  const onKeyDown = (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
      event.preventDefault();
      if (canRank && !isBusy) {
        rank();
      }
    }
  };
  return html`<form class="card ranking-form" onSubmit=${onSubmit} onKeyDown=${onKeyDown}>
    <div class="ranking-fields">
      <${ModelField} id="ranking-model" model=${model} offered=${offered} byKind onChoose=${(id) => set({ model: id })} />
      <${Field} id="ranking-query" label="Query">
        <input
          id="ranking-query"
          class="input"
          dir="auto"
          autocomplete="off"
          value=${asked.query}
          onInput=${(event) => set({ query: event.target.value })}
        />
      <//>
    </div>
    <${Field} id="ranking-documents" label="Documents" hint=${`One per line; ${plural(count, "document")}.`}>
      <textarea
        id="ranking-documents"
        class="input"
        dir="auto"
        rows="8"
        aria-describedby="ranking-documents-hint"
        value=${asked.documents}
        onInput=${(event) => set({ documents: event.target.value })}
      ></textarea>
    <//>
    ${
      model?.kind === "embedding" &&
      html`<label class="row small">
        <input
          type="checkbox"
          checked=${asked.inputTypes}
          onChange=${(event) => set({ inputTypes: event.target.checked })}
        />
        Tell the model which text is the query (input_type)
      </label>`
    }
    <div class="row">
      <button type="submit" class="button primary ranking-go" disabled=${!isBusy && !canRank}>${isBusy ? "Stop" : "Rank"}</button>
      <span class="tiny muted ${isKnown ? "ranking-keys" : ""}">
        ${isKnown ? "Ctrl+Enter ranks, Escape stops." : "Fetching the list of models."}
      </span>
    </div>
  </form>`;
}

function RankingResult({ found, model, keyed }) {
  const isBusy = found?.state === "waiting";
  return html`<section class="card ranking-result" aria-label="Documents by score" aria-busy=${isBusy}>
    ${found === null && html`<p class="tiny muted">Nothing has been ranked yet.</p>`}
    ${isBusy && html`<${Loading} model=${model} waitsFor="the scores" />`}
    ${found?.best && html`<${Best} found=${found} />`}
    ${found?.state === "stopped" && html`<p class="tiny muted">Stopped by you.</p>`}
    ${found?.error && html`<${Failure} error=${found.error} />`}
    ${
      found !== null &&
      html`<div class="row wrap">
        ${found.bodies.map(
          (body, index) =>
            html`<${CopyButton}
              key=${index}
              label="curl"
              title=${`Copy request ${index + 1} of ${found.bodies.length} as curl`}
              textOf=${() => asCurl(found.path, body, { keyed })}
            />`,
        )}
      </div>`
    }
    <div class="sr" role="status">${found?.state ?? ""}</div>
  </section>`;
}

function Best({ found: { best, kind, tokens, seconds } }) {
  const name = kind === "rerank" ? "relevance" : "cosine";
  const facts = [
    [`total ${seconds.toFixed(2)} s`, "time to the scores"],
    tokens > 0 && [`${tokens} tokens`, "tokens"],
  ].filter(Boolean);
  return html`<ol class="ranking-best">
      ${best.map(
        ({ text, index, score }) =>
          html`<li key=${index}>
            <span class="number ranking-score" title=${name}>${score.toFixed(3)}</span>
            <meter min="0" max="1" value=${Math.max(0, score)} aria-label=${`${name} of document ${index + 1}`}></meter>
            <span class="break" dir="auto">${text}</span>
          </li>`,
      )}
    </ol>
    <${FactLine} facts=${facts} />`;
}
