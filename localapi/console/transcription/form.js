/** Form for a file or recording, the model and the parameters. */

import { html, useRef } from "../dom.js";
import { Field, ModelField } from "../field.js";
import { bytes, duration, useClock } from "../format.js";
import { problemOfPage } from "./microphone.js";

export function TranscriptionForm({ asked, set, offered, isKnown, model, source, recording, isWriting, canWrite, act, player }) {
  const { file } = source;
  const problem = isTooLarge(file, model) ? tooLarge(file, model) : source.problem;
  // One button for both, so that it keeps the focus when it changes.
  const onSubmit = (event) => {
    event.preventDefault();
    if (isWriting) {
      act.stop();
    } else if (canWrite) {
      act.write(file);
    }
  };
  return html`<form class="card transcription-form" onSubmit=${onSubmit}>
    <${Source} file=${file} recording=${recording} canRecord=${model !== null} act=${act} />
    ${problem && html`<div class="notice bad" role="alert"><p>${problem}</p></div>`}
    ${source.url !== null && html`<${Player} source=${source} player=${player} />`}
    <div class="transcription-fields">
      <${ModelField} id="transcription-model" model=${model} offered=${offered} onChoose=${(id) => set({ model: id })} />
      <${Field} id="transcription-language" label="Spoken language">
        <input
          id="transcription-language"
          class="input"
          autocomplete="off"
          maxlength="40"
          placeholder="detected by the model"
          value=${asked.language}
          onInput=${(event) => set({ language: event.target.value })}
        />
      <//>
      <${Field} id="transcription-prompt" label="Names and words to expect">
        <input
          id="transcription-prompt"
          class="input"
          dir="auto"
          autocomplete="off"
          placeholder="Anna Kowalska, Kubernetes"
          value=${asked.prompt}
          onInput=${(event) => set({ prompt: event.target.value })}
        />
      <//>
    </div>
    <div class="row wrap transcription-checks">
      <${Check} name="translate" text="Translate to English" asked=${asked} set=${set} />
      <${Check} name="times" text="With timestamps, for subtitles" asked=${asked} set=${set} />
    </div>
    <div class="row">
      <button type="submit" class="button primary transcription-go" disabled=${!isWriting && !canWrite}>
        ${isWriting ? "Stop" : "Transcribe"}
      </button>
      <span class="tiny muted ${isKnown ? "transcription-keys" : ""}">
        ${isKnown ? "Ctrl+Enter transcribes, Escape stops." : "Fetching the list of models."}
      </span>
    </div>
  </form>`;
}

/** True if the file is too large for the model. */
export function isTooLarge(file, model) {
  return file !== null && file.size > (model?.max_file_bytes || Infinity);
}

function tooLarge(file, { id, max_file_bytes: most }) {
  return `The file has ${bytes(file.size)}; ${id} accepts at most ${bytes(most)}.`;
}

/** A file to choose, and a button that records. */
function Source({ file, recording, canRecord, act }) {
  const field = useRef(null);
  useClock(recording !== null);
  const choose = () => {
    act.choose(field.current.files);
    field.current.value = ""; // the same file can be chosen again
  };
  const problem = problemOfPage();
  return html`<div class="transcription-source">
    <div class="row wrap">
      <button
        type="button"
        class="button ${recording === null ? "" : "danger"}"
        disabled=${problem !== "" || !canRecord}
        aria-describedby="transcription-source"
        onClick=${() => (recording === null ? act.record() : act.endRecording())}
      >
        ${recording === null ? "Record" : "Stop and transcribe"}
      </button>
      <span class="row">
        <input
          id="transcription-file"
          class="sr"
          type="file"
          accept="audio/*,video/*"
          aria-describedby="transcription-source"
          ref=${field}
          onChange=${choose}
        />
        <label class="button" for="transcription-file">Choose a file</label>
      </span>
      <span class="small transcription-chosen" role="status">${chosen(file, recording)}</span>
    </div>
    <span class="tiny muted" id="transcription-source">
      ${problem || "Or drop an audio or video file anywhere on this page. A recording is transcribed when it ends."}
    </span>
  </div>`;
}

function chosen(file, recording) {
  if (recording?.state === "asking") {
    return "Waiting for permission to use the microphone.";
  }
  if (recording !== null) {
    return `Recording: ${duration(recording.seconds)}`;
  }
  return file === null ? "No file chosen." : `${file.name}, ${bytes(file.size)}`;
}

/** Nobody needs to hear the file, so a browser that cannot play it only says so. */
function Player({ source, player }) {
  return html`<div>
    <audio
      ref=${player}
      class="transcription-player"
      controls
      preload="metadata"
      aria-label="Player"
      src=${source.url}
      hidden=${source.isMute}
      onError=${source.setMute}
    ></audio>
    ${source.isMute && html`<p class="tiny muted">This browser cannot play the file. The server may still be able to.</p>`}
  </div>`;
}

function Check({ name, text, asked, set }) {
  return html`<label class="row small">
    <input type="checkbox" checked=${asked[name]} onChange=${(event) => set({ [name]: event.target.checked })} />
    ${text}
  </label>`;
}
