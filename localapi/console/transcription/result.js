/** The transcript: its text while it comes, what was measured, and ways to take it along. */

import { useBlobUrl } from "../blob_url.js";
import { CopyButton } from "../copy_button.js";
import { html, useMemo } from "../dom.js";
import { FactLine } from "../fact_line.js";
import { Failure } from "../failure.js";
import { capitalized, duration } from "../format.js";
import { Loading } from "../loading.js";
import { formAsCurl, transcriptionAsPython } from "../snippets.js";
import { asSrt, asVtt } from "./subtitles.js";

export function TranscriptionResult({ transcript, model, player, keyed }) {
  if (transcript === null) {
    return html`<section class="card transcription-result" aria-label="Transcript" aria-busy="false">
      <p class="tiny muted">Nothing has been transcribed yet.</p>
    </section>`;
  }
  const { isRunning, error, ignored } = transcript;
  return html`<section class="card transcription-result" aria-label="Transcript" aria-busy=${isRunning}>
    ${isRunning && html`<${Loading} progress=${transcript.progress} model=${model} waitsFor="the first text" />`}
    <${Text} transcript=${transcript} player=${player} />
    ${!isRunning && html`<${Facts} transcript=${transcript} />`}
    <div class="row wrap transcription-actions">
      ${!isRunning && html`<${Saving} transcript=${transcript} />`}
      <${Copying} transcript=${transcript} keyed=${keyed} />
    </div>
    ${error && html`<${Failure} error=${error} />`}
    ${ignored && html`<p class="tiny muted">Ignored by the server: ${ignored}</p>`}
    <div class="sr" role="status">${spoken(transcript)}</div>
  </section>`;
}

function spoken({ state, segments, text }) {
  if (state !== "complete") {
    return state;
  }
  return text === "" ? "complete, nothing was said" : `complete, ${segments.length || "some"} segments`;
}

/** Segments with their times, from each of which the player can be started; or else the text alone. */
function Text({ transcript, player }) {
  const { segments, text, state } = transcript;
  if (text === "") {
    return state === "complete" && html`<p class="muted">No speech was found.</p>`;
  }
  if (segments.length === 0) {
    return html`<p class="transcription-text" dir="auto">${text}</p>`;
  }
  return html`<ol class="transcription-segments">
    ${segments.map(
      ({ start, text: said }, index) =>
        html`<li key=${index}>
          <button
            type="button"
            class="link number"
            aria-label=${`Play from ${stamp(start)}`}
            onClick=${() => playFrom(player.current, start)}
          >
            ${stamp(start)}
          </button>
          <span dir="auto">${said}</span>
        </li>`,
    )}
  </ol>`;
}

function playFrom(player, seconds) {
  if (player !== null) {
    player.currentTime = seconds;
    player.play().catch(() => {}); // the page says already that the browser cannot play it
  }
}

/** "0:07", "1:02:03". */
function stamp(seconds) {
  const whole = Math.floor(seconds);
  const [hours, minutes] = [Math.floor(whole / 3600), Math.floor(whole / 60) % 60];
  const rest = String(whole % 60).padStart(2, "0");
  return hours > 0 ? `${hours}:${String(minutes).padStart(2, "0")}:${rest}` : `${minutes}:${rest}`;
}

function Facts({ transcript }) {
  const { firstSeconds, totalSeconds, soundSeconds, language, state } = transcript;
  const facts = [
    soundSeconds !== null && [`${duration(soundSeconds)} of audio`, "duration"],
    language !== null && language !== "unknown" && [capitalized(language), "language"],
    firstSeconds !== null && [`first text ${firstSeconds.toFixed(2)} s`, "time to the first text"],
    [`total ${totalSeconds.toFixed(2)} s`, "time to the end"],
    state === "stopped" && ["stopped by you", "end"],
  ].filter(Boolean);
  return html`<${FactLine} facts=${facts} />`;
}

function Saving({ transcript }) {
  const { text, segments } = transcript;
  if (text === "") {
    return null;
  }
  return html`
    <${Save} transcript=${transcript} ending="txt" label="Text" contentOf=${() => `${text.trim()}\n`} />
    ${
      segments.length > 0 &&
      html`<${Save} transcript=${transcript} ending="srt" label="SubRip" contentOf=${() => asSrt(segments)} />
        <${Save} transcript=${transcript} ending="vtt" label="WebVTT" contentOf=${() => asVtt(segments)} />`
    }
  `;
}

function Save({ transcript, ending, label, contentOf }) {
  const file = useMemo(() => new Blob([contentOf()], { type: "text/plain;charset=utf-8" }), [transcript, transcript.state]);
  const href = useBlobUrl(file);
  return html`<a class="button small" href=${href} download=${transcript.fileName(ending)} aria-label=${`Save as ${label}`}
    >.${ending}</a
  >`;
}

function Copying({ transcript, keyed }) {
  const { path, fields, sent, text } = transcript;
  return html`
    ${text !== "" && html`<${CopyButton} label="Copy" title="Copy the text" textOf=${() => text.trim()} />`}
    <${CopyButton}
      label="curl"
      title="Copy the request as curl"
      textOf=${() => formAsCurl(path, fields, sent.name, { keyed })}
    />
    <${CopyButton}
      label="Python"
      title="Copy the request as Python"
      textOf=${() => transcriptionAsPython(path, fields, sent.name, { keyed })}
    />
  `;
}
