/** Speaks with models: a text, who says it and how, and the sound while it is made. */

import { html, useEffect, useReducer, useRef, useState } from "../dom.js";
import { wayOf } from "./playback.js";
import { useSubject } from "../routes.js";
import { SpeechForm } from "./form.js";
import { NO_RECORDINGS, filesOf } from "./recordings.js";
import { bodyOf } from "./request.js";
import { SpeechResult } from "./result.js";
import { Utterance } from "./utterance.js";

const NOTHING_SAID = {
  model: null,
  input: "Good morning! It is nine, and this is how I sound.",
  voice: "",
  response_format: wayOf("mp3") === "media-source" ? "mp3" : "wav",
  speed: null,
  instructions: "",
  ...NO_RECORDINGS,
  ref_text: "",
};

/** The page. */
export function SpeechPage({ models, api }) {
  const [said, setSaid] = useState(NOTHING_SAID);
  const [utterance, setUtterance] = useState(null);
  const [, show] = useReducer((count) => count + 1, 0);
  const audio = useRef(null);
  const offered = models ?? [];
  const model = offered.find((each) => each.id === said.model) ?? offered[0] ?? null;
  const voices = useVoices(api, model);
  const set = (changes) => setSaid((before) => ({ ...before, ...changes }));
  useSubject("speech", (id) => set({ model: id, voice: "" }));
  const isSpeaking = utterance?.isSpeaking === true;

  if (models !== null && model === null) {
    return html`<div class="page">
      <div class="page-head"><h1>Speech</h1></div>
      <div class="empty">
        <strong>The manifest has no speech model.</strong>
        <p>
          Add one under <code>speech</code>, or run <code>localapi add --backend auto --kind speech</code>; it appears here at
          once.
        </p>
      </div>
    </div>`;
  }
  const speak = () => {
    utterance?.stop();
    const next = new Utterance(bodyOf(said, model), { recordings: filesOf(said) });
    setUtterance(next);
    next.speak(api, audio.current, show);
  };
  const stop = () => utterance.stop();
  return html`<div class="page speech" onKeyDown=${(event) => event.key === "Escape" && isSpeaking && stop()}>
    <div class="page-head"><h1>Speech</h1></div>
    <${SpeechForm}
      said=${said}
      set=${set}
      offered=${offered}
      isKnown=${models !== null}
      model=${model}
      voices=${voices}
      isSpeaking=${isSpeaking}
      speak=${speak}
      stop=${stop}
    />
    <${SpeechResult} utterance=${utterance} model=${model} audio=${audio} keyed=${api.hasKey} />
  </div>`;
}

/** The model's voices: {list, error}; the list is null until it is known. It can be another when it has been loaded. */
function useVoices(api, model) {
  const [voices, setVoices] = useState({ of: null, list: null, error: null });
  const isReady = model?.state === "ready";
  useEffect(() => {
    const aborter = new AbortController();
    if (model !== null) {
      api.get(`/v1/audio/voices?model=${encodeURIComponent(model.id)}`, { signal: aborter.signal }).then(
        (reply) => setVoices({ of: model.id, list: reply.voices, error: null }),
        (error) => !aborter.signal.aborted && setVoices({ of: model.id, list: [], error }),
      );
    }
    return () => aborter.abort();
  }, [model?.id, model?.serving, isReady]);
  return voices.of === model?.id ? voices : { list: null, error: null };
}
