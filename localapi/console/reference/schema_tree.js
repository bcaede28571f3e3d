/** A schema as a tree that opens where the reader looks. A schema inside itself is named and not opened again. */

import { html, useState } from "../dom.js";
import { limitsOf, namesIn, partsOf, resolved, typeOf } from "./schemas.js";

/** The parts of a schema. `above` are the names of the schemas around it. */
export function SchemaTree({ schema, document, above = [] }) {
  const parts = partsOf(schema, document);
  if (parts.length === 0) {
    return html`<p class="schema-line"><span class="schema-type">${typeOf(schema, document)}</span></p>`;
  }
  const around = [...above, ...namesIn(schema, document).filter(Boolean)];
  return html`<ul class="schema">
    ${parts.map((part) => html`<li key=${part.key}><${Part} part=${part} document=${document} above=${around} /></li>`)}
  </ul>`;
}

function Part({ part, document, above }) {
  const [isOpen, setIsOpen] = useState(false);
  const names = namesIn(part.schema, document);
  const isCircle = names.some((name) => name !== null && above.includes(name));
  const canOpen = !isCircle && partsOf(part.schema, document).length > 0;
  const line = html`<${Line} part=${part} document=${document} isCircle=${isCircle} />`;
  if (!canOpen) {
    return html`<div class="schema-line">${line}</div>`;
  }
  return html`<details onToggle=${(event) => setIsOpen(event.target.open)}>
    <summary class="schema-line">${line}</summary>
    ${isOpen && html`<${SchemaTree} schema=${part.schema} document=${document} above=${above} />`}
  </details>`;
}

function Line({ part, document, isCircle }) {
  const { schema } = resolved(part.schema, document);
  const about = part.schema.description ?? schema.description;
  return html`<span class="schema-name ${part.isVariant ? "variant" : ""}">${part.label}</span>
    ${part.isRequired && html`<span class="schema-required">required</span>`}
    ${!part.isVariant && html`<span class="schema-type">${typeOf(part.schema, document)}</span>`}
    ${limitsOf(part.schema, document).map((limit) => html`<span class="schema-limit" key=${limit}>${limit}</span>`)}
    ${isCircle && html`<span class="schema-limit">as above</span>`}
    ${about && !part.isVariant && html`<span class="schema-about">${about}</span>`}`;
}
