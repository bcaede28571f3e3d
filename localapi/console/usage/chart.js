/** One number over hours or days, as bars; the last one is now. */

import { html } from "../dom.js";

const WIDTH = 240;
const HEIGHT = 64;

/** `values`: {start, value}; null is no value. A rate has no sum: its largest value stands beside its name. */
export function Chart({ name, unit, values, show, isRate = false }) {
  const known = values.map(({ value }) => value ?? 0);
  const top = Math.max(...known, 1e-9);
  const step = WIDTH / values.length;
  const total = isRate ? Math.max(...known) : known.reduce((sum, value) => sum + value, 0);
  const label = `${name} per ${unit}, ${isRate ? "peak" : "total"} ${show(total)}`;
  return html`<section class="card figure" aria-label=${name}>
    <h2 class="figure-name">${name}</h2>
    <p class="figure-value number">${show(total)} <span>${isRate ? "peak" : "total"}</span></p>
    <svg class="bars" viewBox="0 0 ${WIDTH} ${HEIGHT}" preserveAspectRatio="none" role="img" aria-label=${label}>
      <path class="ground" d="M0,${HEIGHT - 0.5}H${WIDTH}" />
      ${values.map(({ start, value }, index) => value > 0 && html`<rect key=${start} x=${(index * step).toFixed(2)}
        y=${(HEIGHT - Math.max(2, (value / top) * HEIGHT)).toFixed(1)} width=${Math.max(0.6, step * 0.8).toFixed(2)}
        height=${Math.max(2, (value / top) * HEIGHT).toFixed(1)}><title>${when(start, unit)}: ${show(value)}</title></rect>`)}
    </svg>
    <p class="row tiny muted"><span class="grow">${when(values[0].start, unit)}</span><span>now</span></p>
  </section>`;
}

function when(start, unit) {
  const at = new Date(start * 1000);
  const date = at.toLocaleDateString("en-CA");
  return unit === "hour" ? `${date} ${String(at.getHours()).padStart(2, "0")}:00` : date;
}
