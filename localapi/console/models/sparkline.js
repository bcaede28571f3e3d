/** The last minutes of one number, as a curve that ends now at its right edge. */

import { html } from "../dom.js";

const WIDTH = 240;
const HEIGHT = 40;

/** `least`: what the top stands for at least, so that small numbers do not look like peaks. */
export function Sparkline({ values, label, least = 1 }) {
  const top = Math.max(least, ...values);
  const step = (value) => (HEIGHT - 2 - (value / top) * (HEIGHT - 5)).toFixed(1);
  const from = WIDTH - values.length + 1;
  const points = values.map((value, index) => `${from + index},${step(value)}`);
  return html`<svg class="sparkline" viewBox="0 0 ${WIDTH} ${HEIGHT}" preserveAspectRatio="none" role="img" aria-label=${label}>
    <path class="ground" d="M0,${HEIGHT - 2}H${WIDTH}" />
    ${points.length > 1 && html`
      <path class="area" d="M${from},${HEIGHT}L${points.join("L")}V${HEIGHT}Z" />
      <path class="line" d="M${points.join("L")}" />`}
  </svg>`;
}
