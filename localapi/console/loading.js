/** Progress of a waiting request: its position in the queue, memory, loading, its prompt. */

import { html } from "./dom.js";
import { bytes } from "./format.js";

/** `progress` is what the stream says, `model` what is known of the model: its loading is newer. */
export function Loading({ progress = null, model, waitsFor = "the first token" }) {
  const current = model?.state === "loading" ? loadingOf(model, progress) : progress;
  const text = textOf(current, waitsFor);
  const value = current?.total && current.state !== "memory" ? current.done / current.total : null;
  return html`<div class="waiting">
    <span class="spinner" aria-hidden="true"></span>
    <span>${text}</span>
    ${value !== null && html`<progress max="1" value=${value} aria-label=${text}></progress>`}
  </div>`;
}

function loadingOf({ progress }, told) {
  if (progress === null || progress === undefined) {
    return told ?? { state: "loading" };
  }
  return { state: "loading", step: progress.phase, done: progress.done, total: progress.total };
}

function textOf(progress, waitsFor) {
  const at = progress?.at ? ` at ${progress.at}` : "";
  switch (progress?.state) {
    case "queued":
      return `Queued for ${progress.model}${at}: position ${progress.position}`;
    case "memory":
      return `Waiting for memory: position ${progress.position}, ${bytes(progress.done)} of ${bytes(progress.total)} in use`;
    case "loading":
      return progress.step ? `Loading${at}: ${progress.step}` : `Loading${at}`;
    case "prompt":
      return `Reading the prompt: ${progress.done} of ${progress.total} tokens`;
    case "sound":
      return progress.total ? `Transcribed ${progress.done} of ${progress.total} s` : `Transcribed ${progress.done} s`;
    default:
      return `Waiting for ${waitsFor}${at}`;
  }
}
