/** Where the user writes: one text for all conversations. */

import { html, useEffect, useRef } from "./dom.js";

export function Composer({ session, active, count, running, problem, send, show }) {
  const field = useRef(null);
  useEffect(() => {
    if (active && !matchMedia("(pointer: coarse)").matches) {
      field.current.focus({ preventScroll: true }); // a finger would bring up the keyboard
    }
  }, [active]);
  const busy = running.length > 0;
  const canSend = !busy && count > 0 && session.draft.trim() !== "";
  const submit = (event) => {
    event.preventDefault();
    if (canSend) {
      send(session.draft);
    }
  };
  const stop = () => running.forEach((conversation) => conversation.stop());
  const onKeyDown = (event) => {
    if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
      submit(event);
    } else if (event.key === "Escape" && busy) {
      stop();
    }
  };
  const onInput = (event) => {
    session.draft = event.target.value;
    show();
  };
  // The two buttons have keys: one element that turned into the other under the pointer would submit the form.
  return html`<form class="composer" onSubmit=${submit}>
    ${problem && html`<p class="composer-problem" role="alert">${problem}</p>`}
    <div class="composer-box">
      <label class="sr" for="composer-text">Message</label>
      <textarea
        id="composer-text"
        class="input"
        ref=${field}
        rows="1"
        placeholder=${count > 1 ? `Message to ${count} models` : "Message"}
        aria-describedby="composer-hint"
        value=${session.draft}
        onInput=${onInput}
        onKeyDown=${onKeyDown}
      ></textarea>
      ${
        busy
          ? html`<button key="stop" type="button" class="button primary" onClick=${stop}>
              Stop${running.length > 1 ? " all" : ""}
            </button>`
          : html`<button key="send" type="submit" class="button primary" disabled=${!canSend}>Send</button>`
      }
    </div>
    <p class="composer-hint" id="composer-hint">
      ${busy ? "Answering. Escape stops it." : "Enter sends, Shift+Enter begins a new line."}
    </p>
  </form>`;
}
