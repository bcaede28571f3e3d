/** The system prompt and the parameters of a chat's requests. What is left empty is not sent. */

import { html } from "../dom.js";
import { DIALECTS } from "./dialects.js";
import { JSON_PARAMETERS, PARAMETERS, problemOf } from "./parameters.js";

const LABELS = { extra: "other parameters" };

/** Return the number of parameters that the user has set. */
export function countSet(settings) {
  return Object.values(settings).filter((typed) => typed.trim() !== "").length;
}

export function SettingsPanel({ settings, set, close }) {
  const field = (parameter) =>
    html`<${Field} key=${parameter.name} parameter=${parameter} typed=${settings[parameter.name] ?? ""} set=${set} />`;
  const reset = () => set(Object.fromEntries(Object.keys(settings).map((name) => [name, ""])));
  return html`<aside class="settings" id="chat-settings" aria-label="Parameters">
    <div class="settings-head">
      <h2>Parameters</h2>
      <button type="button" class="button quiet small" disabled=${countSet(settings) === 0} onClick=${reset}>
        Reset
      </button>
      <button type="button" class="button quiet small" onClick=${close}>Close</button>
    </div>
    <p class="settings-note">
      Changes apply to the next request. Empty fields are not sent, so the manifest's defaults apply.
    </p>
    <div class="field wide">
      <label for="set-system">System prompt</label>
      <textarea
        id="set-system"
        class="input"
        dir="auto"
        rows="3"
        value=${settings.system}
        onInput=${(event) => set({ system: event.target.value })}
      ></textarea>
    </div>
    <div class="field wide">
      <label for="set-dialect">API</label>
      <select
        id="set-dialect"
        class="input"
        value=${settings.dialect}
        onInput=${(event) => set({ dialect: event.target.value })}
      >
        ${Object.entries(DIALECTS).map(
          ([name, { label, path }]) => html`<option key=${name} value=${name}>${label}: ${path}</option>`,
        )}
      </select>
    </div>
    <div class="settings-grid">${PARAMETERS.map(field)}</div>
    ${JSON_PARAMETERS.map(field)}
  </aside>`;
}

function Field({ parameter, typed, set }) {
  const { name, kind } = parameter;
  const id = `set-${name}`;
  const problem = problemOf(parameter, typed);
  const common = {
    id,
    value: typed,
    onInput: (event) => set({ [name]: event.target.value }),
    "aria-invalid": problem !== "",
    "aria-describedby": problem ? `${id}-problem` : undefined,
  };
  return html`<div class="field ${kind === "json" || kind === "lines" ? "wide" : ""}">
    <label for=${id}
      ><code>${LABELS[name] ?? name}</code>${kind === "json" && html` <span class="field-kind">JSON</span>`}</label
    >
    ${inputOf(parameter, common)} ${problem && html`<p class="field-problem" id=${`${id}-problem`}>${problem}</p>`}
  </div>`;
}

function inputOf({ kind, choices, hint }, common) {
  switch (kind) {
    case "choice":
      return html`<select ...${common} class="input">
        <option value="">not sent</option>
        ${choices.map((choice) => html`<option key=${choice} value=${choice}>${choice}</option>`)}
      </select>`;
    case "json":
      return html`<textarea
        ...${common}
        class="input mono"
        rows="3"
        spellcheck="false"
        placeholder=${hint}
      ></textarea>`;
    case "lines":
      return html`<textarea
        ...${common}
        class="input mono"
        rows="2"
        spellcheck="false"
        placeholder=${hint}
      ></textarea>`;
    default:
      return html`<input ...${common} class="input" inputmode="decimal" autocomplete="off" placeholder=${hint} />`;
  }
}
