/** A conversation as a file to keep: Markdown, for people and for other programs. */

const KEPT_MS = 60_000; // until a browser that asks where to put the file has surely read it

/** The whole of it: what was asked for with the last answer, each message, what was thought and called. */
export function asMarkdown(model, turns) {
  const system = turns.findLast((turn) => turn.role === "assistant")?.body.messages.find(({ role }) => role === "system");
  const parts = [`# Conversation with ${model}`, ...(system ? ["## System", system.content] : [])];
  for (const turn of turns) {
    parts.push(...partsOf(turn, model));
  }
  return `${parts.join("\n\n")}\n`;
}

function partsOf(turn, model) {
  if (turn.role === "user") {
    const names = (turn.images ?? []).map(({ name, kind }) => `(${kind === "audio" ? "Recording" : "Image"}: ${name})`);
    return ["## You", ...names, turn.content].filter(Boolean);
  }
  if (turn.role === "tool") {
    return [`## Result of ${turn.name}`, fenced(turn.content, "")];
  }
  const thought = turn.reasoning.trim();
  return [
    `## ${model}`,
    thought && thought.replace(/^/gm, "> "),
    turn.content.trim(),
    ...turn.calls.flatMap((call) => [`Calls \`${call.name}\`:`, fenced(call.arguments, "json")]),
    turn.error && `(Failed: ${turn.error.message})`,
    turn.state === "stopped" && "(Stopped here.)",
  ].filter(Boolean);
}

/** In a fence that is longer than all in the text. */
function fenced(text, language) {
  const longest = Math.max(2, ...(text.match(/`+/g) ?? []).map((ticks) => ticks.length));
  const fence = "`".repeat(longest + 1);
  return `${fence}${language}\n${text}\n${fence}`;
}

/** Let the browser keep the conversation where it keeps files. */
export function save(model, turns) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([asMarkdown(model, turns)], { type: "text/markdown" }));
  link.download = `${model.replace(/[^\p{L}\p{N}_.-]+/gu, "-")}.md`;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), KEPT_MS);
}
