/** A button that copies, in Preact's trees. */

import { copyText } from "./copying.js";
import { html, useEffect, useState } from "./dom.js";

const SAID_MS = 1500;

/** `textOf` is asked when it is pressed; `label` is what the button shows, `title` its whole name. */
export function CopyButton({ textOf, label, title = label }) {
  const [said, setSaid] = useState("");
  useEffect(() => {
    const timer = said === "" ? null : setTimeout(() => setSaid(""), SAID_MS);
    return () => clearTimeout(timer);
  }, [said]);
  const copy = () =>
    copyText(textOf()).then(
      () => setSaid("Copied"),
      () => setSaid("Not copied"),
    );
  return html`<button type="button" class="button quiet small" aria-label=${said || title} onClick=${copy}>
    ${said || label}
  </button>`;
}
