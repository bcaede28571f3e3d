/** Recordings that go along with a text: whose voice to speak with and what is said there, and speech to convert. */

import { html, useRef, useState } from "../dom.js";
import { takes } from "./request.js";

/** Of all files together. The server takes bodies of 16 MiB, and base64 makes four bytes of three. */
const MOST_BYTES = 12_000_000;
export const RECORDINGS = ["ref_audio", "source_audio"];

/** State when the page opens. `ref_audio` and `source_audio` are data: URLs. */
export const NO_RECORDINGS = Object.assign({}, ...RECORDINGS.map(noRecording));

function noRecording(name) {
  return { [name]: "", [`${name}_name`]: "", [`${name}_is_reading`]: false };
}

/** True if a chosen file is still being read. */
export function isReading(said) {
  return RECORDINGS.some((name) => said[`${name}_is_reading`]);
}

/** File names of the recordings, by field. */
export function filesOf(said) {
  return Object.fromEntries(RECORDINGS.map((name) => [name, said[`${name}_name`]]));
}

/** Fields for those that the model takes. */
export function Recordings({ said, set, model }) {
  const clones = takes(model, "ref_audio");
  const converts = takes(model, "source_audio");
  if (!clones && !converts) {
    return null;
  }
  return html`<div class="speech-recordings">
    ${
      clones &&
      html`<${Recording}
        name="ref_audio"
        label="Voice to clone"
        hint="A recording of a few seconds. It is sent with each request."
        said=${said}
        set=${set}
      />`
    }
    ${takes(model, "ref_text") && said.ref_audio && html`<${RefText} text=${said.ref_text} set=${set} />`}
    ${
      converts &&
      html`<${Recording}
        name="source_audio"
        label="Speech to convert"
        hint="A recording to convert to the model's voice, or to the cloned one. The text above is then ignored."
        said=${said}
        set=${set}
      />`
    }
  </div>`;
}

function RefText({ text, set }) {
  return html`<div class="field">
    <label for="speech-ref_text">Transcript of the recording</label>
    <textarea
      id="speech-ref_text"
      class="input"
      dir="auto"
      rows="1"
      placeholder="Word for word"
      value=${text}
      onInput=${(event) => set({ ref_text: event.target.value })}
    ></textarea>
    <span class="hint">Many models sound better if they have it.</span>
  </div>`;
}

function Recording({ name, label, hint, said, set }) {
  const field = useRef(null);
  const [problem, setProblem] = useState("");
  const forget = () => {
    field.current.value = "";
    set(noRecording(name));
  };
  const choose = async () => {
    const [file] = field.current.files;
    if (file === undefined) {
      return; // the choice was given up, and what was chosen before stays
    }
    setProblem("");
    set({ ...noRecording(name), [`${name}_is_reading`]: true });
    try {
      const url = await dataUrlOf(file, MOST_BYTES - bytesBeside(name, said));
      set({ [name]: url, [`${name}_name`]: file.name, [`${name}_is_reading`]: false });
    } catch (error) {
      setProblem(error.message);
      forget();
    }
  };
  const remove = () => {
    setProblem("");
    forget();
    field.current.focus();
  };
  const id = `speech-${name}`;
  // The browser's own field forgets the name when another model was chosen meanwhile.
  const about = said[name] ? `${said[`${name}_name`]} is sent with each request.` : hint;
  return html`<div class="field">
    <label for=${id}>${label}</label>
    <div class="row">
      <input
        id=${id}
        class="input grow"
        type="file"
        accept="audio/*"
        aria-describedby=${`${id}-hint`}
        aria-invalid=${problem !== ""}
        ref=${field}
        onChange=${choose}
      />
      ${
        said[name] &&
        html`<button type="button" class="button quiet small" aria-label=${`Remove: ${label}`} onClick=${remove}>Remove</button>`
      }
    </div>
    <span class="hint" id=${`${id}-hint`}>${problem ? html`<span class="bad-text">${problem}</span>` : about}</span>
  </div>`;
}

/** Return the size of the other recordings. */
function bytesBeside(name, said) {
  const others = RECORDINGS.filter((each) => each !== name);
  return others.reduce((total, each) => total + Math.ceil((said[each].length * 3) / 4), 0);
}

/** The file as a `data:` URL. Raises Error with what is wrong. */
async function dataUrlOf(file, most) {
  if (file.size === 0 || file.size > most) {
    throw new Error(`The file has ${file.size.toLocaleString("en")} bytes; 1 to ${most.toLocaleString("en")} can be sent.`);
  }
  return await new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.addEventListener("load", () => resolve(reader.result));
    reader.addEventListener("error", () => reject(new Error("The browser cannot read this file.")));
    reader.readAsDataURL(file);
  });
}
