/** A message of the user, which can be edited, or a tool's result. */

import { html, useLayoutEffect, useRef, useState } from "../dom.js";
import { Thumbnails } from "./images.js";

const LONG_CHARACTERS = 1500;
const LONG_LINES = 20;

/** `edit` takes the new text, and tells whether it was sent; it is null while the turn is not to be edited. */
export function UserTurn({ turn, isLast, edit }) {
  const [draft, setDraft] = useState(null);
  const button = useRef(null);
  const wasEdited = useRef(false);
  useLayoutEffect(() => {
    if (draft === null && wasEdited.current) {
      button.current?.focus(); // where it was when editing began
    }
    wasEdited.current = draft !== null;
  }, [draft]);
  if (turn.role === "tool") {
    return html`<article class="turn tool" aria-label=${`Result of ${turn.name}`}>
      <p class="turn-label">Result of <code>${turn.name}</code></p>
      <pre class="code" dir="auto" tabindex="0">${turn.content}</pre>
    </article>`;
  }
  if (draft !== null && edit !== null) {
    const done = (text) => edit(text) && setDraft(null);
    return html`<${Editor} draft=${draft} isLast=${isLast} setDraft=${setDraft} done=${done} />`;
  }
  return html`<article class="turn user ${isLast ? "" : "earlier"}" aria-label="You">
    ${edit && html`<button type="button" class="button quiet small" ref=${button} onClick=${() => setDraft(turn.content)}>
      Edit
    </button>`}
    ${turn.images?.length > 0 ? html`<${Shown} turn=${turn} />` : html`<${Said} text=${turn.content} />`}
  </article>`;
}

/** A message with its images. */
function Shown({ turn }) {
  return html`<div class="said">
    <${Thumbnails} images=${turn.images} />
    ${turn.content !== "" && html`<${Said} text=${turn.content} />`}
  </div>`;
}

/** Text of a message. A long text is collapsed, so that its answer is not far below. */
function Said({ text }) {
  const [isOpen, setIsOpen] = useState(false);
  if (text.length < LONG_CHARACTERS && text.split("\n").length < LONG_LINES) {
    return html`<div class="bubble" dir="auto">${text}</div>`;
  }
  return html`<div class="bubble long">
    <div class=${isOpen ? "" : "folded"} dir="auto">${text}</div>
    <button type="button" class="button quiet small" aria-expanded=${isOpen} onClick=${() => setIsOpen(!isOpen)}>
      ${isOpen ? "Show less" : `Show all ${text.length.toLocaleString("en")} characters`}
    </button>
  </div>`;
}

function Editor({ draft, isLast, setDraft, done }) {
  const field = useRef(null);
  useLayoutEffect(() => field.current.focus(), []);
  const onKeyDown = (event) => {
    if (event.key === "Escape") {
      event.preventDefault();
      setDraft(null);
    } else if (event.key === "Enter" && !event.shiftKey && !event.isComposing && draft.trim() !== "") {
      event.preventDefault();
      done(draft);
    }
  };
  return html`<article class="turn user editing" aria-label="You">
    <textarea
      ref=${field}
      class="input"
      dir="auto"
      aria-label="Edit the message"
      rows="2"
      value=${draft}
      onInput=${(event) => setDraft(event.target.value)}
      onKeyDown=${onKeyDown}
    ></textarea>
    <div class="turn-actions">
      ${!isLast && html`<span class="turn-label">Later messages will be removed.</span>`}
      <button type="button" class="button quiet small" onClick=${() => setDraft(null)}>Cancel</button>
      <button type="button" class="button small" disabled=${draft.trim() === ""} onClick=${() => done(draft)}>
        Send again
      </button>
    </div>
  </article>`;
}
