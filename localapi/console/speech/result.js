/** The sound: its picture, a player, what was measured, and ways to take it along. */

import { useBlobUrl } from "../blob_url.js";
import { FactLine } from "../fact_line.js";
import { Failure } from "../failure.js";
import { Loading } from "../loading.js";
import { CopyButton } from "../copy_button.js";
import { bytes } from "../format.js";
import { html } from "../dom.js";
import { asCurl, speechAsPython } from "../snippets.js";
import { PATH } from "./utterance.js";
import { Waveform } from "./waveform.js";

export function SpeechResult({ utterance, model, audio, keyed }) {
  return html`<section class="card speech-result" aria-label="The sound" aria-busy=${utterance?.totalSeconds === null}>
    <${Waveform} sound=${utterance?.sound ?? null} audio=${audio} />
    <audio ref=${audio} controls preload="auto" aria-label="Player"></audio>
    <div class="speech-foot">
      ${
        utterance === null
          ? html`<p class="tiny muted">Nothing has been spoken yet.</p>`
          : html`<${Facts} utterance=${utterance} model=${model} />`
      }
      ${utterance !== null && html`<${Actions} utterance=${utterance} keyed=${keyed} />`}
    </div>
    ${utterance?.error && html`<${Failure} error=${utterance.error} />`}
    ${
      utterance?.playError &&
      html`<div class="notice warn"><p>The browser cannot play the audio: ${utterance.playError.message}</p></div>`
    }
    ${utterance?.unsupported && html`<p class="tiny muted">Not supported by the model: ${utterance.unsupported}</p>`}
    ${utterance?.ignored && html`<p class="tiny muted">Ignored by the server: ${utterance.ignored}</p>`}
    <div class="sr" role="status">${utterance === null ? "" : spoken(utterance)}</div>
  </section>`;
}

function spoken({ state, sound }) {
  return state === "complete" && sound ? `${sound.duration.toFixed(1)} seconds of speech` : state;
}

function Facts({ utterance, model }) {
  const { firstSeconds, totalSeconds, bytes: size, sound, state } = utterance;
  if (state === "waiting") {
    return html`<${Loading} model=${model} waitsFor="the first sound" />`;
  }
  const facts = [
    firstSeconds !== null && [`first byte ${firstSeconds.toFixed(2)} s`, "time to the first byte"],
    totalSeconds !== null && [`total ${totalSeconds.toFixed(2)} s`, "time to the last byte"],
    sound && [`${sound.duration.toFixed(2)} s of audio`, "duration"],
    sound && state === "complete" && [`${pace(sound.duration / totalSeconds)}× real time`, "speed"],
    size > 0 && [bytes(size), "size"],
    state === "stopped" && ["stopped by you", "end"],
  ].filter(Boolean);
  return html`<${FactLine} facts=${facts} />`;
}

function pace(times) {
  return times < 10 ? times.toFixed(1) : Math.round(times);
}

function Actions({ utterance, keyed }) {
  const { body, file, fileName, recordings } = utterance;
  const href = useBlobUrl(file);
  return html`<div class="turn-actions">
    <${CopyButton}
      label="curl"
      title="Copy the request as curl"
      textOf=${() => asCurl(PATH, body, { keyed, file: fileName, recordings })}
    />
    <${CopyButton}
      label="Python"
      title="Copy the request as Python"
      textOf=${() => speechAsPython(body, { keyed, file: fileName, recordings })}
    />
    ${href && html`<a class="button small" href=${href} download=${fileName}>Download</a>`}
  </div>`;
}
