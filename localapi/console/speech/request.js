/** What the form says as the body of a request. */

import { wayOf } from "./playback.js";

/** Backends of which it is known that no words change how they speak. */
const DEAF_TO_INSTRUCTIONS = new Set(["macos-say", "espeak-ng", "piper"]);

/** The body of a request: what was left empty is not in it. */
export function bodyOf(said, model) {
  const body = { model: model.id, input: said.input, response_format: said.response_format };
  if (said.voice !== "") {
    body.voice = said.voice;
  }
  if (said.speed !== null) {
    body.speed = said.speed;
  }
  if (said.instructions.trim() !== "" && takesInstructions(model)) {
    body.instructions = said.instructions;
  }
  if (wayOf(said.response_format) === "whole") {
    body.stream = false; // so the file knows its length
  } else if (said.response_format === "wav") {
    body.stream = true; // or the server would wait for the end of a single sentence, to write its length
  }
  return body;
}

export function takesInstructions(model) {
  return !DEAF_TO_INSTRUCTIONS.has(model.backend);
}
