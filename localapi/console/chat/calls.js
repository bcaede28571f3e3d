/** The tools that an answer calls, and fields for what they gave. */

import { CopyButton } from "../copy_button.js";
import { html, useState } from "../dom.js";

/** `sendResults` takes a text for each call by its id; it is null where nothing can follow. */
export function Calls({ calls, sendResults }) {
  const [results, setResults] = useState({});
  const submit = (event) => {
    event.preventDefault();
    sendResults(results);
  };
  return html`<form class="calls" onSubmit=${submit}>
    ${calls.map(
      (call) =>
        html`<div class="call" key=${call.id}>
          <p class="turn-label">Calls <code>${call.name}</code></p>
          <div class="framed">
            <div class="framed-head">
              <span>arguments</span>
              <${CopyButton} label="Copy" title="Copy the arguments" textOf=${() => prettyJson(call.arguments)} />
            </div>
            <pre class="code" tabindex="0" role="region" aria-label=${`Arguments of ${call.name}`}>
${prettyJson(call.arguments)}</pre>
          </div>
          ${
            sendResults &&
            html`<label class="field">
              <span>Result of <code>${call.name}</code></span>
              <textarea
                rows="1"
                class="input mono"
                spellcheck="false"
                placeholder="What the tool returned"
                value=${results[call.id] ?? ""}
                onInput=${(event) => setResults({ ...results, [call.id]: event.target.value })}
              ></textarea>
            </label>`
          }
        </div>`,
    )}
    ${sendResults && html`<button type="submit" class="button">Send ${calls.length > 1 ? "results" : "the result"}</button>`}
  </form>`;
}

/** Arguments are a text that should be JSON; while it comes, and where a model errs, it is not. */
function prettyJson(text) {
  try {
    return JSON.stringify(JSON.parse(text), null, 2);
  } catch {
    return text;
  }
}
