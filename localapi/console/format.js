/** Numbers and times as people read them. */

import { useEffect, useState } from "./dom.js";

/** In the form of localapi/system/byte_sizes.py: a GB is 2^30 bytes. */
export function bytes(count) {
  if (count === null || count === undefined) return "–";
  const power = [4, 3, 2, 1].find((each) => count >= 2 ** (10 * each)) ?? 0;
  const size = count / 2 ** (10 * power);
  const digits = power === 0 ? 0 : (size < 10) + (size < 100 && power > 2);
  return `${size.toFixed(digits)} ${["B", "kB", "MB", "GB", "TB"][power]}`;
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

/** A model's state in words: "not downloaded". */
export function stateName(state) {
  return state.replaceAll("_", " ");
}

export function capitalized(word) {
  return word.charAt(0).toUpperCase() + word.slice(1);
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

/** Render a component again every second while it is shown. */
export function useClock(active) {
  const [, setTick] = useState(0);
  useEffect(() => {
    if (!active) return undefined;
    const timer = setInterval(() => setTick((tick) => tick + 1), 1000);
    return () => clearInterval(timer);
  }, [active]);
}
