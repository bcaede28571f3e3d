/** A model's answer: what it thought, said and called, how it ended, and what was measured. */

import { Calls } from "./calls.js";
import { measures } from "./conversation.js";
import { DIALECTS } from "./dialects.js";
import { CopyButton } from "../copy_button.js";
import { html, useLayoutEffect, useRef } from "../dom.js";
import { FactLine } from "../fact_line.js";
import { Failure } from "../failure.js";
import { plural } from "../format.js";
import { Loading } from "../loading.js";
import { showMarkdown } from "./markdown.js";
import { asCurl, chatAsPython } from "../snippets.js";


export function Answer({ turn, model, keyed, isLast, again, sendResults }) {
  const ended = turn.endedAt !== null;
  return html`<article class="turn answer" aria-label=${`Answer of ${turn.body.model}`} aria-busy=${!ended}>
    ${turn.reasoning && html`<${Reasoning} turn=${turn} />`}
    ${turn.content && html`<${Markdown} text=${turn.content} />`}
    ${turn.calls.length > 0 && html`<${Calls} calls=${turn.calls} sendResults=${isLast && ended ? sendResults : null} />`}
    ${turn.state === "waiting" && html`<${Loading} progress=${turn.progress} model=${model} />`}
    ${turn.error && html`<${Failure} error=${turn.error} />`}
    ${turn.state === "stopped" && html`<p class="stopped">Stopped by you.</p>`}
    <${Notes} turn=${turn} />
    <div class="answer-foot">
      <${Measures} turn=${turn} context=${model?.context_length ?? null} />
      ${ended && html`<${Actions} turn=${turn} keyed=${keyed} again=${isLast ? again : null} />`}
    </div>
  </article>`;
}

function Actions({ turn, keyed, again }) {
  const curl = () => asCurl(turn.dialect.path, turn.body, { keyed });
  const python = () => chatAsPython(turn.body, { keyed });
  return html`<div class="turn-actions">
    ${turn.content && html`<${CopyButton} label="Copy" title="Copy the answer" textOf=${() => turn.content} />`}
    <${CopyButton} label="curl" title="Copy the request as curl" textOf=${curl} />
    ${turn.dialect === DIALECTS[""] && html`<${CopyButton} label="Python" title="Copy the request as Python" textOf=${python} />`}
    ${again && html`<button type="button" class="button quiet small" onClick=${again}>Again</button>`}
  </div>`;
}

export function Markdown({ text }) {
  const element = useRef(null);
  useLayoutEffect(() => showMarkdown(element.current, text), [text]);
  return html`<div class="markdown" ref=${element}></div>`;
}

function Reasoning({ turn }) {
  const seconds = measures(turn).thoughtSeconds.toFixed(1);
  const isThinking = turn.thoughtUntil === null && turn.endedAt === null;
  return html`<details class="reasoning">
    <summary>${isThinking ? "Thinking for" : "Thought for"} ${seconds} s</summary>
    <div class="reasoning-text" dir="auto">${turn.reasoning.trim()}</div>
  </details>`;
}

function Notes({ turn }) {
  return html`
    ${turn.ignored && html`<p class="answer-note">Ignored by the server: ${turn.ignored}</p>`}
    ${turn.locked && html`<p class="answer-note">Locked by the manifest: ${turn.locked}</p>`}
    ${saidNothing(turn) && html`<p class="answer-note">The answer is empty.</p>`}
    ${turn.finishReason === "length" && html`<p class="answer-note">Cut off at the maximum number of tokens.</p>`}
  `;
}

function saidNothing({ state, content, reasoning, calls }) {
  return state === "complete" && content.trim() === "" && reasoning.trim() === "" && calls.length === 0;
}

/** One line, which is there from the beginning so that nothing moves when it fills. */
function Measures({ turn, context }) {
  const measured = measures(turn);
  const parts = [
    measured.firstSeconds !== null && [`first token ${shortSeconds(measured.firstSeconds)}`, "time to the first token"],
    measured.tokensPerSecond !== null && [`${shortNumber(measured.tokensPerSecond)} tokens/s`, "after the first token"],
    measured.tokens !== null && [plural(measured.tokens, "token"), tokensTitle(measured)],
    context !== null && measured.tokens !== null && [`${shareOf(measured, context)} of the context`, contextTitle(context)],
    turn.finishReason && [`ended: ${turn.finishReason}`, "finish_reason"],
  ].filter(Boolean);
  return html`<${FactLine} facts=${parts} />`;
}

function shareOf({ tokens, promptTokens }, context) {
  const share = (100 * (promptTokens + tokens)) / context;
  return share < 1 ? "under 1 %" : `${Math.round(share)} %`;
}

function contextTitle(context) {
  return `prompt and answer together; the context holds ${context.toLocaleString("en")} tokens`;
}

function tokensTitle({ promptTokens, cachedTokens, reasoningTokens }) {
  const cached = cachedTokens ? ` (${cachedTokens} cached)` : "";
  const thought = reasoningTokens ? ` (${reasoningTokens} for reasoning)` : "";
  return `in the answer${thought}; ${promptTokens} in the prompt${cached}`;
}

function shortSeconds(seconds) {
  return seconds < 10 ? `${seconds.toFixed(2)} s` : `${seconds.toFixed(1)} s`;
}

function shortNumber(number) {
  return number < 100 ? number.toFixed(1) : Math.round(number).toString();
}
