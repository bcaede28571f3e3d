/** One conversation: its head, what was said, and a place that follows its end while the reader is there. */

import { Answer } from "./answer.js";
import { save } from "./transcript.js";
import { UserTurn } from "./user.js";
import { html, useEffect, useLayoutEffect, useRef, useState } from "../dom.js";
import { stateName } from "../format.js";

const NEAR_END_PX = 32;
const TONES = { ready: "good", loading: "info", failed: "bad", cooling_down: "warn" };
const OPENERS = ["What can you do?", "Write a haiku about the sea.", "Explain recursion with a short example."];
/** The model that comes with localapi has learnt to answer these. */
const DEMO_OPENERS = ["What can you do?", "Tell me a story.", "Show me some code.", "Think about two plus two."];

export function Column({ conversation, model, isKnown, isFront, keyed, withSettings, say, remove }) {
  const { turns, isRunning } = conversation;
  const lastUser = turns.findLastIndex((turn) => turn.role === "user");
  const { region, isAway, toEnd, onScroll } = useFollowing();
  /** Do what takes the button away that was pressed, unless it is refused: the keyboard goes on from the conversation. */
  const andStay = (act) => {
    const isDone = act() !== false;
    if (isDone) {
      region.current.focus({ preventScroll: true });
    }
    return isDone;
  };
  /** Not by the second half of a double click, whose first half was to stop. */
  const clear = (event) => event.detail < 2 && andStay(() => conversation.clear());
  const bringBack = conversation.cleared.length > 0 ? () => andStay(() => conversation.bringBack()) : null;
  const turnOf = (turn, at) => {
    if (turn.role === "assistant") {
      return html`<${Answer}
        key=${at}
        turn=${turn}
        model=${model}
        keyed=${keyed}
        isLast=${at === turns.length - 1}
        again=${() => andStay(() => withSettings((settings) => conversation.again(settings)))}
        sendResults=${(results) =>
          andStay(() => withSettings((settings) => conversation.sendResults(results, settings)))}
      />`;
    }
    const edit = (text) => andStay(() => withSettings((settings) => conversation.edit(at, text, settings)));
    return html`<${UserTurn} key=${at} turn=${turn} isLast=${at === lastUser} edit=${isRunning ? null : edit} />`;
  };
  return html`<section class="column ${isFront ? "front" : ""}" aria-label=${`Conversation with ${conversation.model}`}>
    <div class="column-head">
      <h2 title=${conversation.model}>${conversation.model}</h2>
      ${isKnown && html`<span class="badge ${TONES[model?.state] ?? ""}">${model ? stateName(model.state) : "not in the manifest"}</span>`}
      <span class="grow"></span>
      ${
        turns.length > 0 &&
        html`<button
          type="button"
          class="button quiet small"
          key="save"
          aria-label=${`Save the conversation with ${conversation.model}`}
          title="Save as a Markdown file"
          onClick=${() => save(conversation.model, turns)}
        >
          Save
        </button>`
      }
      ${
        isRunning
          ? html`<button type="button" class="button small" key="stop" onClick=${() => andStay(() => conversation.stop())}>
              Stop
            </button>`
          : html`<button
              type="button"
              class="button quiet small"
              key="clear"
              disabled=${turns.length === 0}
              aria-label=${`Clear the conversation with ${conversation.model}`}
              onClick=${clear}
            >
              Clear
            </button>`
      }
      ${
        remove &&
        html`<button
          type="button"
          class="button quiet small icon"
          aria-label=${`Remove ${conversation.model} from the page`}
          title="Remove from the page"
          onClick=${remove}
        >
          ✕
        </button>`
      }
    </div>
    <div
      class="turns"
      role="region"
      aria-label=${`Messages of ${conversation.model}`}
      aria-busy=${isRunning}
      tabindex="0"
      ref=${region}
      onScroll=${onScroll}
    >
      ${turns.length === 0 ? html`<${Openers} texts=${openersFor(model)} say=${say} bringBack=${bringBack} />` : turns.map(turnOf)}
    </div>
    ${isAway && html`<button type="button" class="button small to-end" onClick=${toEnd}>Jump to the end</button>`}
  </section>`;
}

/** `path` is known to keys with the admin right only. */
function openersFor(model) {
  const isDemo = (model?.path ?? model?.id) === "demo";
  return isDemo ? DEMO_OPENERS : OPENERS;
}

function Openers({ texts, say, bringBack }) {
  return html`<div class="openers">
    <p>No messages yet. Write one below, or start with one of these.</p>
    ${texts.map((text) => html`<button type="button" class="button" key=${text} disabled=${say === null} onClick=${() => say(text)}>${text}</button>`)}
    ${bringBack && html`<p><button type="button" class="button quiet small" onClick=${bringBack}>Restore the conversation</button></p>`}
  </div>`;
}

/** An element that stays at its end while it grows, until its reader scrolls up. */
function useFollowing() {
  const region = useRef(null);
  const follows = useRef(true);
  const lastTop = useRef(0);
  const [isAway, setIsAway] = useState(false);
  const keepUp = () => {
    if (follows.current && region.current !== null) {
      region.current.scrollTop = region.current.scrollHeight;
    }
  };
  useLayoutEffect(keepUp);
  useEffect(() => {
    const observer = new ResizeObserver(keepUp); // a phone that is turned, or that shows its keyboard
    observer.observe(region.current);
    return () => observer.disconnect();
  }, []);
  const onScroll = () => {
    const { scrollTop, scrollHeight, clientHeight } = region.current;
    if (scrollHeight - scrollTop - clientHeight <= NEAR_END_PX) {
      follows.current = true;
    } else if (scrollTop < lastTop.current) {
      follows.current = false;
    }
    lastTop.current = scrollTop;
    setIsAway(!follows.current);
  };
  const toEnd = () => {
    follows.current = true;
    setIsAway(false);
    region.current.focus();
  };
  return { region, isAway, toEnd, onScroll };
}
