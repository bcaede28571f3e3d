/** What an answer waits for: the model's loading, its place in the queue, its prompt. */

import { html } from "./dom.js";

/** `note` is what the stream's comments say, `model` what is known of the model. */
export function Loading({ note, model, waitsFor = "the first token" }) {
  const progress = model?.state === "loading" ? model.progress : null;
  const share = progress?.total ? progress.done / progress.total : null;
  const prompt = /^prompt (\d+) of (\d+) tokens$/.exec(note);
  const text = prompt
    ? `Reading the prompt: ${prompt[1]} of ${prompt[2]} tokens`
    : textOf(note, model, progress, waitsFor);
  const value = prompt ? Number(prompt[1]) / Number(prompt[2]) : share;
  return html`<div class="waiting">
    <span class="spinner" aria-hidden="true"></span>
    <span>${text}</span>
    ${value !== null && html`<progress max="1" value=${value} aria-label=${text}></progress>`}
  </div>`;
}

function textOf(note, model, progress, waitsFor) {
  if (progress) {
    return `Loading: ${progress.phase}`;
  }
  if (note !== "") {
    return note[0].toUpperCase() + note.slice(1);
  }
  return model?.state === "loading" ? "Loading" : `Waiting for ${waitsFor}`;
}
