/** Light, dark, or as the system is. The choice is the one thing this page stores. */

import { html, useState } from "./dom.js";
import { Icon } from "./icons.js";

const NEXT = { auto: "light", light: "dark", dark: "auto" };
const ICONS = { auto: "auto", light: "sun", dark: "moon" };
const STORED = "localapi.theme";

function stored() {
  try {
    return NEXT[localStorage.getItem(STORED)] ? localStorage.getItem(STORED) : "auto";
  } catch {
    return "auto"; // storage is switched off
  }
}

function apply(theme) {
  if (theme === "auto") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = theme;
}

apply(stored());

export function ThemeButton() {
  const [theme, setTheme] = useState(stored);
  const change = () => {
    const next = NEXT[theme];
    apply(next);
    setTheme(next);
    try {
      localStorage.setItem(STORED, next);
    } catch {
      // it holds until the page is closed
    }
  };
  const label = `Theme: ${theme}. Change to ${NEXT[theme]}.`;
  return html`<button class="button quiet icon small" onClick=${change} aria-label=${label} title=${label}>
    <${Icon} name=${ICONS[theme]} /></button>`;
}
