/** One endpoint of the API: its parameters, its body, its replies, and a request that it answers. */

import { CopyButton } from "../copy_button.js";
import { html, useState } from "../dom.js";
import { exampleModel } from "../first_model.js";
import { SchemaTree } from "./schema_tree.js";
import { limitsOf, typeOf } from "./schemas.js";
import { asCurl } from "../snippets.js";

const JSON_TYPE = "application/json";

export function Endpoint({ method, path, operation, document, models, keyed }) {
  const [isOpen, setIsOpen] = useState(false);
  return html`<details class="card endpoint" onToggle=${(event) => setIsOpen(event.target.open)}>
    <summary>
      <span class="method ${method.toLowerCase()}">${method}</span>
      <code class="endpoint-path">${path}</code>
      <span class="endpoint-about">${operation.summary}</span>
    </summary>
    ${
      isOpen &&
      html`<div class="endpoint-body">
        ${operation.description && html`<p>${operation.description}</p>`}
        <${Parameters} parameters=${operation.parameters ?? []} document=${document} />
        <${Example} curl=${exampleCurl({ method, path, operation, models, keyed })} />
        <${Body} operation=${operation} document=${document} />
        <${Replies} responses=${operation.responses} document=${document} />
      </div>`
    }
  </details>`;
}

function Parameters({ parameters, document }) {
  if (parameters.length === 0) {
    return null;
  }
  return html`<h3>Parameters</h3>
    <ul class="schema">
      ${parameters.map(
        (each) =>
          html`<li key=${each.name} class="schema-line">
            <span class="schema-name">${each.name}</span>
            ${each.required && html`<span class="schema-required">required</span>`}
            <span class="schema-type">${typeOf(each.schema, document)}, in the ${each.in}</span>
            ${limitsOf(each.schema, document).map((limit) => html`<span class="schema-limit" key=${limit}>${limit}</span>`)}
            ${each.description && html`<span class="schema-about">${each.description}</span>`}
          </li>`,
      )}
    </ul>`;
}

function Body({ operation, document }) {
  const schema = operation.requestBody?.content?.[JSON_TYPE]?.schema;
  return (
    schema &&
    html`<h3>Body</h3>
      <${SchemaTree} schema=${schema} document=${document} />`
  );
}

function Example({ curl }) {
  return html`<h3>Example</h3>
    <div class="framed">
      <div class="framed-head">
        <span>curl</span><${CopyButton} label="Copy" title="Copy the example" textOf=${() => curl} />
      </div>
      <pre class="code" tabindex="0" role="region" aria-label="Example">${curl}</pre>
    </div>`;
}

function Replies({ responses, document }) {
  return html`<h3>Replies</h3>
    <ul class="replies">
      ${Object.entries(responses).map(
        ([status, reply]) =>
          html`<li key=${status}><${Reply} status=${status} reply=${reply} document=${document} /></li>`,
      )}
    </ul>`;
}

function Reply({ status, reply, document }) {
  const [isOpen, setIsOpen] = useState(false);
  const schema = reply.content?.[JSON_TYPE]?.schema;
  const head = html`<span class="status ${status[0] === "2" ? "good" : ""}">${status}</span>
    <span class="grow break">${reply.description}</span>
    <span class="reply-types">${Object.keys(reply.content ?? {}).join(", ")}</span>`;
  if (schema === undefined) {
    return html`<div class="reply">${head}</div>`;
  }
  return html`<details onToggle=${(event) => setIsOpen(event.target.open)}>
    <summary class="reply">${head}</summary>
    ${isOpen && html`<${SchemaTree} schema=${schema} document=${document} />`}
  </details>`;
}

/** A request for curl. Its model is one of the manifest's, of the kind that the endpoint is tagged with, if it is. */
function exampleCurl({ method, path, operation, models, keyed }) {
  const ofKind = models.filter((each) => operation.tags?.includes(each.kind));
  const model = exampleModel(ofKind.length > 0 ? ofKind : models)?.id ?? "MODEL";
  const values = Object.fromEntries((operation.parameters ?? []).map(({ name, example }) => [name, example ?? model]));
  const address = path.replace(/\{(\w+)\}/g, (_, name) => values[name]);
  const example = operation.requestBody?.content?.[JSON_TYPE]?.example;
  const body = example?.model ? { ...example, model } : example; // some bodies name no model
  const [type] = Object.keys(operation.responses["200"].content ?? {});
  const file = type?.startsWith("audio/") ? "speech.mp3" : null;
  return asCurl(address, body, { method, keyed, file });
}
