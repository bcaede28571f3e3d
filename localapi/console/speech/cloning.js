/** Whose voice to speak with: a recording, and what is said in it. */

import { html, useRef, useState } from "../dom.js";

/** Of a file. The server takes bodies of 16 MiB, and base64 makes four bytes of three. */
const MOST_BYTES = 12_000_000;

/** As the page begins. `ref_audio` is a data: URL. */
export const NO_RECORDING = { ref_audio: "", ref_audio_name: "", isReading: false };

export function CloningFields({ said, set, takesText }) {
  const field = useRef(null);
  const [problem, setProblem] = useState("");
  const choose = async () => {
    const [file] = field.current.files;
    if (file === undefined) {
      return; // the choice was given up, and what was chosen before stays
    }
    setProblem("");
    set({ ...NO_RECORDING, isReading: true });
    try {
      set({ ref_audio: await dataUrlOf(file), ref_audio_name: file.name, isReading: false });
    } catch (error) {
      setProblem(error.message);
      forget();
    }
  };
  const forget = () => {
    field.current.value = "";
    set(NO_RECORDING);
  };
  const remove = () => {
    setProblem("");
    forget();
    field.current.focus();
  };
  return html`<div class="speech-cloning">
    <div class="field">
      <label for="speech-recording">Voice to clone</label>
      <div class="row">
        <input
          id="speech-recording"
          class="input grow"
          type="file"
          accept="audio/*"
          aria-describedby="speech-recording-hint"
          aria-invalid=${problem !== ""}
          ref=${field}
          onChange=${choose}
        />
        ${said.ref_audio && html`<button type="button" class="button quiet small" onClick=${remove}>Remove</button>`}
      </div>
      <span class="hint" id="speech-recording-hint">
        ${problem ? html`<span class="bad-text">${problem}</span>` : "A recording of some seconds; it is sent with each text."}
      </span>
    </div>
    ${
      takesText &&
      said.ref_audio &&
      html`<div class="field">
        <label for="speech-recording-text">What is said in it</label>
        <textarea
          id="speech-recording-text"
          class="input"
          rows="1"
          placeholder="Word for word"
          value=${said.ref_text}
          onInput=${(event) => set({ ref_text: event.target.value })}
        ></textarea>
        <span class="hint">Many models sound better when they know it.</span>
      </div>`
    }
  </div>`;
}

/** The file as a `data:` URL. Raises Error with what is wrong. */
async function dataUrlOf(file) {
  if (file.size === 0 || file.size > MOST_BYTES) {
    throw new Error(`The file has ${file.size.toLocaleString("en")} bytes; 1 to ${MOST_BYTES.toLocaleString("en")} can be sent.`);
  }
  return await new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.addEventListener("load", () => resolve(reader.result));
    reader.addEventListener("error", () => reject(new Error("The browser cannot read this file.")));
    reader.readAsDataURL(file);
  });
}
