/** Numbers and times as people read them. */

import { useEffect, useState } from "./dom.js";

export function bytes(count) {
  if (count === null || count === undefined) return "–";
  if (count > 0 && count < 2 ** 20) return `${Math.round(count / 2 ** 10)} KB`;
  return count < 2 ** 30 ? `${Math.round(count / 2 ** 20)} MB` : `${(count / 2 ** 30).toFixed(count < 10 * 2 ** 30 ? 1 : 0)} GB`;
}

export function speed(tokens) {
  if (tokens === null || tokens === undefined) return "–";
  return tokens > 0 && tokens < 10 ? tokens.toFixed(1) : Math.round(tokens).toString();
}

/** "45 s", "12 min", "3 h 20 min", "5 days". */
export function duration(seconds) {
  const whole = Math.max(0, Math.round(seconds));
  if (whole < 60) return `${whole} s`;
  const minutes = Math.floor(whole / 60);
  if (minutes < 60) return `${minutes} min`;
  const hours = Math.floor(minutes / 60);
  if (hours < 48) return minutes % 60 ? `${hours} h ${minutes % 60} min` : `${hours} h`;
  return `${Math.floor(hours / 24)} days`;
}

export function plural(count, word) {
  return `${count} ${word}${count === 1 ? "" : "s"}`;
}

/** The time of day, and the date where it is not today. */
export function clock(seconds) {
  const at = new Date(seconds * 1000);
  const time = at.toLocaleTimeString("en-GB");
  return at.toDateString() === new Date().toDateString() ? time : `${at.toLocaleDateString("en-CA")} ${time}`;
}

/** Has a component drawn again every second while it is shown. */
export function useClock(active) {
  const [, setTick] = useState(0);
  useEffect(() => {
    if (!active) return undefined;
    const timer = setInterval(() => setTick((tick) => tick + 1), 1000);
    return () => clearInterval(timer);
  }, [active]);
}
