/** Segments as subtitles, as localapi/text/subtitles.py writes them. */

export function asSrt(segments) {
  const blocks = segments.map(
    ({ start, end, text }, index) => `${index + 1}\n${time(start, ",")} --> ${time(end, ",")}\n${linesOf(text)}\n`,
  );
  return blocks.join("\n");
}

export function asVtt(segments) {
  const blocks = segments.map(({ start, end, text }) => {
    const escaped = linesOf(text).replaceAll("&", "&amp;").replaceAll("<", "&lt;");
    return `${time(start, ".")} --> ${time(end, ".")}\n${escaped}\n`;
  });
  return ["WEBVTT\n", ...blocks].join("\n");
}

/** A blank line would end a caption, and an arrow would begin another. */
function linesOf(text) {
  const lines = text.replaceAll("-->", "→").split(/\r\n|\n|\r/);
  return lines
    .map((line) => line.trim())
    .filter((line) => line !== "")
    .join("\n");
}

function time(seconds, point) {
  const milliseconds = Math.round(seconds * 1000);
  const [minutes, rest] = [Math.floor(milliseconds / 60_000), milliseconds % 60_000];
  const whole = [Math.floor(minutes / 60), minutes % 60, Math.floor(rest / 1000)].map((part) => String(part).padStart(2, "0"));
  return `${whole.join(":")}${point}${String(rest % 1000).padStart(3, "0")}`;
}
