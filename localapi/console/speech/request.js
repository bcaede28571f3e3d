/** Body of a request from the form. */

import { wayOf } from "./playback.js";

/** Fields that only some models take, each with the field without which it has no effect. */
const OF_SOME = [
  ["instructions", "instructions"],
  ["ref_audio", "ref_audio"],
  ["ref_text", "ref_audio"],
  ["source_audio", "source_audio"],
];

/** The body of a request: what was left empty is not in it, nor what the model does not take. */
export function bodyOf(said, model) {
  const body = { model: model.id, input: said.input, response_format: said.response_format };
  if (said.voice !== "") {
    body.voice = said.voice;
  }
  if (said.speed !== null) {
    body.speed = said.speed;
  }
  for (const [name, needed] of OF_SOME) {
    if (takes(model, name) && said[name].trim() !== "" && said[needed] !== "") {
      body[name] = said[name];
    }
  }
  if (wayOf(said.response_format) === "whole") {
    body.stream = false; // so the file knows its length
  } else if (said.response_format === "wav") {
    body.stream = true; // or the server would wait for the end of a single sentence, to write its length
  }
  return body;
}

/** True if the model takes this field, according to the server. */
export function takes(model, name) {
  return model?.takes?.includes(name) === true;
}
