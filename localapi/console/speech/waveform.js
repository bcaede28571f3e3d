/** A sound as a picture, which also shows how much of it has been heard, and where to go on by a click. */

import { html, useEffect, useMemo, useState } from "../dom.js";

const BARS = 240;
const HEIGHT = 64;
const LEAST = 0.6;

/** The loudest sample of each part, as a share of the loudest of all. */
export function peaksOf(sound, count = BARS) {
  const samples = sound.getChannelData(0);
  const size = samples.length / count;
  const peaks = Array.from({ length: count }, (_, index) => {
    let most = 0;
    for (let at = Math.floor(index * size); at < Math.floor((index + 1) * size); at += 1) {
      most = Math.max(most, Math.abs(samples[at]));
    }
    return most;
  });
  const loudest = Math.max(...peaks, Number.EPSILON);
  return peaks.map((peak) => peak / loudest);
}

function pathOf(peaks) {
  return peaks
    .map((peak, index) => {
      const half = Math.max(LEAST, (peak * (HEIGHT - 4)) / 2);
      return `M${index + 0.2} ${HEIGHT / 2 - half}h0.6v${2 * half}h-0.6z`;
    })
    .join("");
}

export function Waveform({ sound, audio }) {
  const share = useShareHeard(audio, sound?.duration);
  const path = useMemo(() => (sound ? pathOf(peaksOf(sound)) : ""), [sound]);
  const seek = (event) => {
    const { left, width } = event.currentTarget.getBoundingClientRect();
    audio.current.currentTime = Math.max(0, (event.clientX - left) / width) * sound.duration;
  };
  const label = sound ? `Waveform, ${sound.duration.toFixed(1)} s` : "Waveform; nothing yet";
  return html`<svg
    class="waveform"
    viewBox="0 0 ${BARS} ${HEIGHT}"
    preserveAspectRatio="none"
    role="img"
    aria-label=${label}
    onClick=${sound ? seek : undefined}
  >
    <clipPath id="waveform-heard"><rect width=${share * BARS} height=${HEIGHT} /></clipPath>
    ${sound ? html`<path d=${path} />` : html`<path class="silence" d="M0 ${HEIGHT / 2}h${BARS}" />`}
    ${sound && html`<path class="heard" clip-path="url(#waveform-heard)" d=${path} />`}
  </svg>`;
}

/** Share of the audio that has been played, from 0 to 1, updated with each frame. */
function useShareHeard(audio, seconds) {
  const [share, setShare] = useState(0);
  useEffect(() => {
    const element = audio.current;
    let frame = 0;
    const look = () => {
      setShare(seconds ? Math.min(1, element.currentTime / seconds) : 0);
      frame = element.paused ? 0 : requestAnimationFrame(look);
    };
    const restart = () => {
      cancelAnimationFrame(frame);
      look();
    };
    const events = ["play", "pause", "ended", "seeked", "emptied"];
    events.forEach((name) => element.addEventListener(name, restart));
    restart();
    return () => {
      cancelAnimationFrame(frame);
      events.forEach((name) => element.removeEventListener(name, restart));
    };
  }, [seconds]);
  return share;
}
