/** JSON schemas of an OpenAPI document in words. Knows no page. */

const PREFIX = "#/components/schemas/";
const NAMES = {
  string: "text",
  integer: "whole number",
  number: "number",
  boolean: "true or false",
  array: "list",
  object: "object",
  null: "null",
};

/** A schema without its `$ref`, and the name that the document has for it, if any. */
export function resolved(schema, document) {
  if (schema?.$ref?.startsWith(PREFIX)) {
    const name = schema.$ref.slice(PREFIX.length);
    const { $ref, ...more } = schema;
    return { name, schema: { ...document.components.schemas[name], ...more } };
  }
  return { name: null, schema: schema ?? {} };
}

/** The kinds of value that a schema allows beside null, each with its name. */
export function alternatives(schema, document) {
  const found = resolved(schema, document);
  const several = found.schema.anyOf ?? found.schema.oneOf;
  if (several === undefined) {
    return found.schema.type === "null" ? [] : [found];
  }
  return several.flatMap((each) => alternatives(each, document));
}

/** The type of a value in a few words: `list of Tool`, `text or list of text`. */
export function typeOf(schema, document) {
  const words = alternatives(schema, document).map((each) => typeOfOne(each, document));
  return [...new Set(words)].join(" or ") || "anything";
}

function typeOfOne({ name, schema }, document) {
  if (schema.const !== undefined) {
    return JSON.stringify(schema.const);
  }
  if (schema.enum !== undefined) {
    return schema.enum.map((value) => JSON.stringify(value)).join(" | ");
  }
  if (schema.type === "array") {
    return schema.items ? `list of ${typeOf(schema.items, document)}` : "list";
  }
  return (
    name ??
    [schema.type]
      .flat()
      .map((type) => NAMES[type] ?? "anything")
      .join(" or ")
  );
}

/** Bounds and defaults, each as a few words. */
export function limitsOf(schema, document) {
  const said = [schema, ...alternatives(schema, document).map((each) => each.schema)];
  const limits = said.flatMap((each) => [...boundsOf(each), ...defaultOf(each)]);
  return [...new Set(limits)];
}

function boundsOf(schema) {
  const { minimum, maximum, exclusiveMinimum: above, exclusiveMaximum: below } = schema;
  const least = counted(minimum) ?? (above === undefined ? undefined : `above ${above}`);
  const most = counted(maximum) ?? (below === undefined ? undefined : `below ${below}`);
  return [
    range(least, most),
    range(schema.minLength, schema.maxLength, "characters"),
    range(schema.minItems, schema.maxItems, "items"),
    schema.pattern && `like ${schema.pattern}`,
  ].filter(Boolean);
}

/** A bound that a browser knows exactly; the others are so far out that nobody meets them. */
function counted(bound) {
  return Math.abs(bound) > Number.MAX_SAFE_INTEGER ? undefined : bound;
}

function range(least, most, unit = "") {
  if (least === undefined && most === undefined) {
    return "";
  }
  const text =
    most === undefined ? `${least} or more` : least === undefined ? `at most ${most}` : `${least} to ${most}`;
  return unit === "" ? text : `${text} ${unit}`;
}

function defaultOf(schema) {
  return schema.default === undefined || schema.default === null ? [] : [`default ${JSON.stringify(schema.default)}`];
}

/** The schemas below this one that a reader can look into, as {key, label, schema, isRequired}. */
export function partsOf(schema, document) {
  const all = alternatives(schema, document);
  const open = all.map((each) => opened(each, document)).filter((each) => each.parts.length > 0);
  if (open.length === 1) {
    return open[0].parts;
  }
  return open.map(({ name, of, schema: one }, at) => ({
    key: `${at}`,
    label: name ?? of,
    schema: one,
    isVariant: true,
  }));
}

function opened({ name, schema }, document) {
  if (schema.type === "array" && schema.items) {
    return { name, of: "each", schema, parts: partsOf(schema.items, document) };
  }
  const required = new Set(schema.required ?? []);
  const parts = Object.entries(schema.properties ?? {}).map(([key, part]) => ({
    key,
    label: key,
    schema: part,
    isRequired: required.has(key),
  }));
  const first = parts.filter((part) => part.isRequired);
  return { name, of: "object", schema, parts: [...first, ...parts.filter((part) => !part.isRequired)] };
}

/** The names of the document's schemas that this one refers to itself, for noticing a circle. */
export function namesIn(schema, document) {
  return alternatives(schema, document).flatMap(({ name, schema: one }) =>
    one.items ? [name, ...namesIn(one.items, document)] : [name],
  );
}
