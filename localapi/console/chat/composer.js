/** Where the user writes: one text for all conversations. */

import { html, useEffect, useRef } from "../dom.js";

/** With a finger, focus would bring up the keyboard. */
const HAS_KEYBOARD = !matchMedia("(pointer: coarse)").matches;

/** Put the focus where the user writes. */
export function focusComposer() {
  focusOn(document.getElementById("composer-text"));
}

function focusOn(field) {
  if (HAS_KEYBOARD) {
    field.focus({ preventScroll: true });
  }
}

/** `count` is how many models are chosen, or null before it is known which there are; `isOffered`, whether there is any. */
export function Composer({ session, active, count, isOffered, running, problem, send, stop, show }) {
  const field = useRef(null);
  const focus = () => focusOn(field.current);
  useEffect(() => {
    if (active) {
      focus();
    }
  }, [active]);
  const busy = running.length > 0;
  const canSend = !busy && count > 0 && session.draft.trim() !== "";
  // One button for both, so that it keeps the focus when it changes.
  const onSubmit = (event) => {
    event.preventDefault();
    focus();
    if (busy) {
      stop();
    } else if (canSend) {
      send(session.draft);
    }
  };
  const onKeyDown = (event) => {
    if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
      event.preventDefault();
      if (canSend) {
        send(session.draft);
      }
    }
  };
  const onInput = (event) => {
    session.draft = event.target.value;
    show();
  };
  return html`<form class="composer" onSubmit=${onSubmit}>
    ${problem && html`<p class="composer-problem" role="alert">${problem}</p>`}
    <div class="composer-box">
      <label class="sr" for="composer-text">Message</label>
      <textarea
        id="composer-text"
        class="input"
        dir="auto"
        ref=${field}
        rows="1"
        placeholder=${count > 1 ? `Message to ${count} models` : "Message"}
        aria-describedby="composer-hint"
        value=${session.draft}
        onInput=${onInput}
        onKeyDown=${onKeyDown}
      ></textarea>
      <button type="submit" class="button primary" disabled=${!busy && !canSend}>
        ${busy ? (running.length > 1 ? "Stop all" : "Stop") : "Send"}
      </button>
    </div>
    <p class="composer-hint ${busy || count > 0 ? "of-keys" : ""}" id="composer-hint">${hint(busy, count, isOffered)}</p>
  </form>`;
}

function hint(busy, count, isOffered) {
  if (busy) {
    return "Answering. Escape stops it.";
  }
  if (count === null) {
    return "Asking the server for its models. Nothing can be sent yet.";
  }
  if (count === 0) {
    return isOffered ? "Choose a model above to send to." : "There is no model to send to.";
  }
  return "Enter sends, Shift+Enter begins a new line, Escape stops.";
}
