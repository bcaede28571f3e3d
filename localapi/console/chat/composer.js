/** The field for a message, which all conversations share. */

import { html, useEffect, useRef } from "../dom.js";
import { Icon } from "../icons.js";
import { Thumbnails, filesIn, imagesOf } from "./images.js";

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

/**
 * `count` is how many models are chosen, or null before it is known which there are; `isOffered`, whether there is any.
 * `blind` are the ids of those that cannot read what is attached; `complain` says what is wrong.
 */
export function Composer({ session, active, count, isOffered, blind, running, problem, complain, send, stop, show }) {
  const field = useRef(null);
  const files = useRef(null);
  const { images } = session;
  const focus = () => focusOn(field.current);
  useEffect(() => {
    if (active) {
      focus();
    }
  }, [active]);
  const busy = running.length > 0;
  const isBlind = images.length > 0 && blind.length > 0;
  const canSend = !busy && count > 0 && !isBlind && (session.draft.trim() !== "" || images.length > 0);
  const add = async (chosen) => {
    try {
      const added = await imagesOf(chosen);
      session.images = [...session.images, ...added]; // read after the wait: others may have been added meanwhile
      complain("");
    } catch (error) {
      complain(error.message);
    }
    show();
  };
  const remove = (at) => {
    session.images = images.filter((_, each) => each !== at);
    focus();
    show();
  };
  const onPaste = (event) => {
    const pasted = filesIn(event.clipboardData);
    if (pasted.length > 0) {
      event.preventDefault();
      add(pasted);
    }
  };
  const onDrop = (event) => {
    const dropped = filesIn(event.dataTransfer);
    if (dropped.length > 0) {
      event.preventDefault();
      add(dropped);
    }
  };
  // Without this, the browser would open a dropped picture instead of the page.
  const onDragOver = (event) => event.dataTransfer?.types.includes("Files") && event.preventDefault();
  const onFiles = (event) => {
    add([...event.target.files]);
    event.target.value = ""; // so that the same file can be chosen again
    focus();
  };
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
  return html`<form class="composer" onSubmit=${onSubmit} onDrop=${onDrop} onDragOver=${onDragOver}>
    ${problem && html`<p class="composer-problem" role="alert">${problem}</p>`}
    ${images.length > 0 && html`<${Thumbnails} images=${images} remove=${remove} />`}
    ${isBlind && html`<p class="composer-problem" role="alert">${cannotRead(blind, images)}</p>`}
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
        onPaste=${onPaste}
      ></textarea>
      <button
        type="button"
        class="button icon"
        aria-label="Add images or recordings"
        title="Add images or recordings. You can also paste or drop them."
        onClick=${() => files.current.click()}
      >
        <${Icon} name="image" />
      </button>
      <input
        type="file"
        accept="image/*,audio/*"
        multiple
        hidden
        tabindex="-1"
        data-testid="image-files"
        aria-label="Images and recordings"
        ref=${files}
        onChange=${onFiles}
      />
      <button type="submit" class="button primary" disabled=${!busy && !canSend}>
        ${busy ? (running.length > 1 ? "Stop all" : "Stop") : "Send"}
      </button>
    </div>
    <p class="composer-hint ${busy || count > 0 ? "of-keys" : ""}" id="composer-hint">${hint(busy, count, isOffered)}</p>
  </form>`;
}

function cannotRead(blind, images) {
  const kinds = { image: "images", audio: "recordings" };
  const what = [...new Set(images.map(({ kind }) => kinds[kind]))].join(" and ");
  const names = blind.join(" and ");
  return `${names} ${blind.length > 1 ? "do" : "does"} not accept ${what}. Remove them, or choose a model that does.`;
}

function hint(busy, count, isOffered) {
  if (busy) {
    return "Generating. Escape stops it.";
  }
  if (count === null) {
    return "Fetching the list of models. Nothing can be sent yet.";
  }
  if (count === 0) {
    return isOffered ? "Choose a model above first." : "There is no chat model.";
  }
  return "Enter sends, Shift+Enter starts a new line, Escape stops.";
}
