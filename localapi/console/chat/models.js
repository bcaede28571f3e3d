/** The menu of chat models: any number of them may be chosen. */

import { html, useEffect, useRef } from "../dom.js";

export function ModelMenu({ offered, chosen, toggle }) {
  const menu = useRef(null);
  useEffect(() => closeFromOutside(menu.current), []);
  return html`<details class="model-menu" ref=${menu}>
    <summary class="button">Models <span class="chat-count">${chosen.length}</span></summary>
    <fieldset class="menu">
      <legend class="sr">Models to talk to</legend>
      ${offered.map(
        (model) =>
          html`<label key=${model.id} class="menu-item">
            <input type="checkbox" checked=${chosen.includes(model.id)} onChange=${() => toggle(model.id)} />
            <span class="menu-name">${model.id}</span>
            <span class="menu-note">${model.backend} · ${model.state}</span>
            ${model.description && html`<span class="menu-about">${model.description}</span>`}
          </label>`,
      )}
      ${offered.length === 0 && html`<p class="menu-note">There is no chat model.</p>`}
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
