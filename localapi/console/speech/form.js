/** Form for the text, the voice and the other parameters. */

import { html } from "../dom.js";
import { Field, ModelField } from "../field.js";
import { plural } from "../format.js";
import { wayOf } from "./playback.js";
import { Recordings, isReading } from "./recordings.js";
import { takes } from "./request.js";

const FORMATS = ["mp3", "opus", "aac", "flac", "wav", "pcm"];

export function SpeechForm({ said, set, offered, isKnown, model, voices, isSpeaking, speak, stop }) {
  const length = [...said.input].length;
  const most = model?.max_input_characters ?? Infinity;
  const canSpeak = model !== null && said.input.trim() !== "" && length <= most && !isReading(said);
  // One button for both, so that it keeps the focus when it changes.
  const onSubmit = (event) => {
    event.preventDefault();
    if (isSpeaking) {
      stop();
    } else if (canSpeak) {
      speak();
    }
  };
  const onKeyDown = (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
      event.preventDefault();
      if (canSpeak && !isSpeaking) {
        speak();
      }
    }
  };
  return html`<form class="card speech-form" onSubmit=${onSubmit} onKeyDown=${onKeyDown}>
    <label class="field speech-text">
      <span>Text</span>
      <textarea
        class="input"
        dir="auto"
        rows="5"
        value=${said.input}
        onInput=${(event) => set({ input: event.target.value })}
      ></textarea>
    </label>
    <div class="speech-fields">
      <${ModelField}
        id="speech-model"
        model=${model}
        offered=${offered}
        onChoose=${(id) => set({ model: id, voice: "" })}
      />
      <${VoiceField} voice=${said.voice} voices=${voices} set=${set} />
      <${Field}
        id="speech-format"
        label="Format"
        hint=${wayOf(said.response_format) === "whole" ? "plays when complete" : "plays as it arrives"}
      >
        <select
          id="speech-format"
          class="input"
          aria-describedby="speech-format-hint"
          value=${said.response_format}
          onChange=${(event) => set({ response_format: event.target.value })}
        >
          ${FORMATS.map((format) => html`<option key=${format} value=${format}>${format}</option>`)}
        </select>
      <//>
      <${SpeedField} speed=${said.speed} set=${set} />
    </div>
    ${
      takes(model, "instructions") &&
      html`<label class="field">
        <span>Instructions</span>
        <textarea
          class="input"
          rows="1"
          placeholder="How to speak: calm and slow"
          value=${said.instructions}
          onInput=${(event) => set({ instructions: event.target.value })}
        ></textarea>
      </label>`
    }
    <${Recordings} said=${said} set=${set} model=${model} />
    <div class="row">
      <button type="submit" class="button primary speech-go" disabled=${!isSpeaking && !canSpeak}>
        ${isSpeaking ? "Stop" : "Speak"}
      </button>
      <span class="tiny muted ${isKnown ? "speech-keys" : ""}">
        ${isKnown ? "Ctrl+Enter speaks, Escape stops." : "Fetching the list of models."}
      </span>
      <span class="tiny number speech-count ${length > most ? "bad-text" : "muted"}" role=${length > most ? "alert" : undefined}>
        ${length > most ? `${length} characters; this model accepts at most ${most}` : `${length} characters`}
      </span>
    </div>
  </form>`;
}

function VoiceField({ voice, voices, set }) {
  const onInput = (event) => set({ voice: event.target.value });
  const list = voices.list ?? [];
  const groups = [
    ["From the manifest", list.filter((each) => each.source === "manifest")],
    ["From the engine", list.filter((each) => each.source !== "manifest")],
  ].filter(([, some]) => some.length > 0);
  const common = { id: "speech-voice", class: "input", "aria-describedby": "speech-voice-hint", value: voice, onInput };
  // A name is not asked for before it is known that the model lists none: what was typed would be lost to the list.
  return html`<${Field} id="speech-voice" label="Voice" hint=${voices.error?.message ?? hintOf(voices.list)}>
    ${
      groups.length > 0 || voices.list === null
        ? html`<select ...${common} disabled=${voices.list === null}>
            <option value="">default</option>
            ${groups.map(
              ([name, some]) =>
                html`<optgroup key=${name} label=${name}>
                  ${some.map((each) => html`<option key=${each.id} value=${each.id}>${voiceLabel(each)}</option>`)}
                </optgroup>`,
            )}
          </select>`
        : html`<input ...${common} placeholder="the model's default" autocomplete="off" />`
    }
  <//>`;
}

function voiceLabel({ id, name, language }) {
  return [name === id ? id : `${id} · ${name}`, language !== id && language].filter(Boolean).join(" · ");
}

function hintOf(list) {
  if (list === null) {
    return "fetching the list";
  }
  return list.length === 0 ? "any name; the model lists none" : `${plural(list.length, "voice")}`;
}

function SpeedField({ speed, set }) {
  return html`<div class="field">
    <label for="speech-speed">Speed</label>
    <div class="row speech-speed">
      <input
        id="speech-speed"
        type="range"
        min="0.25"
        max="4"
        step="0.05"
        value=${speed ?? 1}
        aria-valuetext=${speed === null ? "the model's default" : `${speed} times`}
        onInput=${(event) => set({ speed: Number(event.target.value) })}
      />
      <output for="speech-speed" class="number">${speed === null ? "default" : `${speed.toFixed(2)}×`}</output>
    </div>
    <span class="hint">
      ${
        speed === null
          ? "not sent"
          : html`<button type="button" class="link" onClick=${() => set({ speed: null })}>reset to the default</button>`
      }
    </span>
  </div>`;
}
