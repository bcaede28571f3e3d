/** The menu of chat models: any number of them may be chosen. */

import { html, useEffect, useRef, useState } from "../dom.js";
import { stateName } from "../format.js";
import { MANY, hasWords } from "../words.js";

export function ModelMenu({ offered, chosen, toggle }) {
  const menu = useRef(null);
  const [words, setWords] = useState("");
  const shown = offered.length > MANY ? offered.filter((model) => hasWords(model, words)) : offered;
  useEffect(() => closeFromOutside(menu.current), []);
  return html`<details class="model-menu" ref=${menu}>
    <summary class="button">Models <span class="chat-count">${chosen.length}</span></summary>
    <fieldset class="menu">
      <legend class="sr">Models to talk to</legend>
      ${
        offered.length > MANY &&
        html`<input
          class="input menu-search"
          type="search"
          aria-label="Find a model"
          placeholder="Find a model"
          value=${words}
          onInput=${(event) => setWords(event.target.value)}
        />`
      }
      ${shown.map(
        (model) =>
          html`<label key=${model.id} class="menu-item">
            <input type="checkbox" checked=${chosen.includes(model.id)} onChange=${() => toggle(model.id)} />
            <span class="menu-name">${model.id}</span>
            <span class="menu-note">${model.backend} · ${stateName(model.state)}</span>
            ${model.description && html`<span class="menu-about"><bdi>${model.description}</bdi></span>`}
          </label>`,
      )}
      ${
        shown.length === 0 &&
        html`<p class="menu-note menu-none">
          ${offered.length === 0 ? "There is no chat model." : "No model matches all of these words."}
        </p>`
      }
    </fieldset>
  </details>`;
}

/** Close a <details> by Escape, and by whatever happens beside it. Gives what stops that. */
function closeFromOutside(details) {
  const away = (event) => {
    if (!details.contains(event.target)) {
      details.open = false;
    }
  };
  const escape = (event) => {
    if (event.key === "Escape" && details.open) {
      event.preventDefault();
      details.open = false;
      details.firstElementChild.focus();
    }
  };
  document.addEventListener("pointerdown", away);
  document.addEventListener("focusin", away);
  details.addEventListener("keydown", escape);
  return () => {
    document.removeEventListener("pointerdown", away);
    document.removeEventListener("focusin", away);
  };
}
