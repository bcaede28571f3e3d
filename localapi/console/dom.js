/**
 * The one way to make elements: `html` with Preact's components and hooks.
 *
 * Values in a template are text or attributes and never markup. `dangerouslySetInnerHTML` is for sanitized markdown alone.
 */

import { h } from "./vendor/preact.js";
import htm from "./vendor/htm.js";

export { Fragment, createContext, render } from "./vendor/preact.js";
export * from "./vendor/hooks.js";
export const html = htm.bind(h);
