/** Writes down what is said in a file, or into the microphone, while it is heard. */

import { useBlobUrl } from "../blob_url.js";
import { html, useEffect, useReducer, useRef, useState } from "../dom.js";
import { useSubject } from "../routes.js";
import { TranscriptionForm, isTooLarge } from "./form.js";
import { Recording } from "./microphone.js";
import { TranscriptionResult } from "./result.js";
import { Transcript, fieldsOf } from "./transcript.js";

const NOTHING_ASKED = { model: null, language: "", prompt: "", translate: false, times: true };

/** The page. */
export function TranscriptionPage({ models, api, active }) {
  const [asked, setAsked] = useState(NOTHING_ASKED);
  const [transcript, setTranscript] = useState(null);
  const [recording, setRecording] = useState(null);
  const source = useSource();
  const [, show] = useReducer((count) => count + 1, 0);
  const player = useRef(null);
  const offered = models ?? [];
  const model = offered.find((each) => each.id === asked.model) ?? offered[0] ?? null;
  const set = (changes) => setAsked((before) => ({ ...before, ...changes }));
  useSubject("transcription", (id) => set({ model: id }));
  const isWriting = transcript?.isRunning === true;
  const canWrite = model !== null && source.file !== null && !isTooLarge(source.file, model) && recording === null;

  const write = (file) => {
    transcript?.stop();
    const next = new Transcript(fieldsOf(asked, model), file, asked);
    setTranscript(next);
    next.write(api, show);
  };
  // A recording is written down as the form says when it ends, not as it said when it began.
  const latest = useRef(write);
  latest.current = write;
  const record = () => {
    const next = new Recording((file, problem) => {
      setRecording(null);
      if (file !== null) {
        source.choose([file]);
        if (next.isWanted) {
          latest.current(file);
        }
      } else if (problem !== null) {
        source.fail(problem.message);
      }
    });
    next.isWanted = true;
    source.fail("");
    setRecording(next);
    next.begin().then(show);
  };
  const stop = () => {
    if (recording !== null) {
      recording.isWanted = false;
      recording.stop();
    } else if (isWriting) {
      transcript.stop();
    }
  };
  useDrop(active && recording === null, source.choose);
  useKeys(active, { stop, start: () => canWrite && !isWriting && write(source.file) });

  if (models !== null && model === null) {
    return html`<div class="page">
      <div class="page-head"><h1>Transcribe</h1></div>
      <div class="empty">
        <strong>The manifest has no transcription model.</strong>
        <p>
          Add one under <code>transcription</code>, or run
          ${" "}<code>localapi add Systran/faster-whisper-small</code>; it appears here at once.
        </p>
      </div>
    </div>`;
  }
  const act = { write, record, stop, choose: source.choose, endRecording: () => recording.stop() };
  return html`<div class="page transcription">
    <div class="page-head"><h1>Transcribe</h1></div>
    <${TranscriptionForm}
      asked=${asked}
      set=${set}
      offered=${offered}
      isKnown=${models !== null}
      model=${model}
      source=${source}
      recording=${recording}
      isWriting=${isWriting}
      canWrite=${canWrite}
      act=${act}
      player=${player}
    />
    <${TranscriptionResult} transcript=${transcript} model=${model} player=${player} keyed=${api.hasKey} />
  </div>`;
}

/** The file that is to be written down, its address for the player, and what is wrong with the choice. */
function useSource() {
  const [chosen, setChosen] = useState({ file: null, problem: "" });
  const [mute, setMute] = useState(null);
  const { file, problem } = chosen;
  const url = useBlobUrl(file);
  const choose = (files) => {
    if (files.length > 1) {
      setChosen((before) => ({ ...before, problem: "Choose one file at a time." }));
    } else if (files.length === 1) {
      const isEmpty = files[0].size === 0;
      setChosen(isEmpty ? { file: null, problem: "The file is empty." } : { file: files[0], problem: "" });
    }
  };
  const fail = (message) => setChosen((before) => ({ ...before, problem: message }));
  return { file, problem, url, choose, fail, isMute: mute === file, setMute: () => setMute(file) };
}

/** Keys act wherever the focus is: a file that was dropped has left it nowhere. */
function useKeys(active, { start, stop }) {
  useEffect(() => {
    const onKeyDown = (event) => {
      if (event.key === "Escape") {
        stop();
      } else if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
        event.preventDefault();
        start();
      }
    };
    if (active) {
      addEventListener("keydown", onKeyDown);
    }
    return () => removeEventListener("keydown", onKeyDown);
  });
}

/** Files that are dropped anywhere on the page, which the browser would otherwise open in its place. */
function useDrop(active, choose) {
  useEffect(() => {
    if (!active) {
      return undefined;
    }
    const allow = (event) => event.dataTransfer?.types.includes("Files") && event.preventDefault();
    const drop = (event) => {
      if (event.dataTransfer?.types.includes("Files")) {
        event.preventDefault();
        choose(event.dataTransfer.files);
      }
    };
    addEventListener("dragover", allow);
    addEventListener("drop", drop);
    return () => {
      removeEventListener("dragover", allow);
      removeEventListener("drop", drop);
    };
  }, [active]);
}
