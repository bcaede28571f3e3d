/** Pictures that stand beside words. */

import { html } from "./dom.js";

const PATHS = {
  models: "M12 3 4 7.5v9L12 21l8-4.5v-9L12 3Zm0 9 8-4.5M12 12v9M12 12 4 7.5",
  chat: "M4 5h16v11H9l-5 4V5Z",
  speech: "M5 10v4M9 6v12M13 9v6M17 4v16M21 10v4",
  transcription: "M12 3a3 3 0 0 0-3 3v5a3 3 0 0 0 6 0V6a3 3 0 0 0-3-3ZM5 11a7 7 0 0 0 14 0M12 18v3M9 21h6",
  ranking: "M4 6h16M4 12h11M4 18h6",
  manifest: "M4 20h4L19 9l-4-4L4 16v4ZM13 7l4 4",
  image: "M4 5h16v14H4V5Zm0 11 5-5 4 4 3-3 4 4M15 9h.01",
  requests: "M4 8h13l-4-4M20 16H7l4 4",
  usage: "M4 20h16M7 20v-7M12 20V5M17 20v-11",
  events: "M8 6h12M8 12h12M8 18h12M4 6h.01M4 12h.01M4 18h.01",
  api: "m8 7-5 5 5 5M16 7l5 5-5 5",
  pin: "M9 4h6l-1 6 4 4H6l4-4-1-6ZM12 14v6",
  sun: "M12 8a4 4 0 1 0 0 8 4 4 0 0 0 0-8ZM12 2v2M12 20v2M4 12H2M22 12h-2M5 5l1.4 1.4M17.6 17.6 19 19M5 19l1.4-1.4M17.6 6.4 19 5",
  moon: "M20 14.5A8 8 0 0 1 9.5 4 8 8 0 1 0 20 14.5Z",
  auto: "M12 3a9 9 0 1 0 0 18 9 9 0 0 0 0-18Zm0 0v18",
};

export function Icon({ name }) {
  return html`<svg viewBox="0 0 24 24" fill="none" stroke="currentColor" stroke-width="1.8" stroke-linecap="round"
    stroke-linejoin="round" aria-hidden="true"><path d=${PATHS[name]} /></svg>`;
}
