/** Controls for values, from the manifest's JSON Schema, and the values of typed texts. */

const PREFIX = "#/$defs/";
const REFERENCE = "Reference";

/** The schema of each backend of a section, by its name; of `peers` and `server` the only one, under "". */
export function schemasOf(section, root) {
  if (section === "server") return { "": resolved(root.properties.server, root)[0] };
  const [entries] = resolved(root.properties[section], root);
  const each = entries.additionalProperties ?? Object.values(entries.patternProperties ?? {})[0];
  if (section === "peers") return { "": resolved(each, root)[0] };
  const found = resolved(each, root).filter((schema) => schema.properties?.backend !== undefined);
  return Object.fromEntries(found.flatMap((schema) => namesOf(schema.properties.backend).map((name) => [name, schema])));
}

function namesOf(backend) {
  return backend.enum ?? [backend.const];
}

/** The sections that have entries by id, in the schema's order. */
export function sectionsOf(root) {
  return Object.keys(root.properties).filter((name) => !["server", "peers", "echo", "include"].includes(name));
}

/** The alternatives of a schema beside null and a reference to a variable, each without `$ref`. */
export function resolved(schema, root) {
  const { $ref: ref, anyOf, ...rest } = schema;
  if (ref === PREFIX + REFERENCE) return [];
  if (ref !== undefined) return resolved({ ...root.$defs[ref.slice(PREFIX.length)], ...rest }, root);
  if (anyOf !== undefined) return anyOf.flatMap((each) => resolved(each, root));
  return schema.type === "null" ? [] : [schema];
}

/**
 * The control for a value: {kind} and what it needs.
 *   choice {values}   text {numeric, bounds}   list {}   group {schema}   map {value}   union {parts}   json {}
 */
export function controlOf(schema, root) {
  const all = resolved(schema, root);
  const scalars = all.filter(isScalar);
  const others = all.filter((each) => !isScalar(each)).map((each) => structured(each, root));
  const parts = scalars.length > 0 ? [scalar(scalars), ...others] : others;
  if (parts.length === 1) return parts[0];
  return parts.length === 0 ? { kind: "json" } : { kind: "union", parts };
}

function isScalar(schema) {
  return schema.enum !== undefined || schema.const !== undefined ||
    ["string", "integer", "number", "boolean"].includes(schema.type);
}

function scalar(schemas) {
  const values = schemas.map(valuesOf);
  if (values.every((each) => each !== null)) return { kind: "choice", name: "a choice", values: values.flat() };
  const numbers = schemas.filter((each) => each.type === "integer" || each.type === "number");
  return {
    kind: "text",
    name: numbers.length === schemas.length ? "a number" : "a value",
    numeric: numbers.length === schemas.length,
    takesNumbers: numbers.length > 0,
    takesText: schemas.some((each) => each.type === "string"),
    bounds: numbers.map(boundsOf).find((text) => text !== "") ?? "",
  };
}

function valuesOf(schema) {
  if (schema.enum !== undefined) return schema.enum;
  if (schema.const !== undefined) return [schema.const];
  return schema.type === "boolean" ? [true, false] : null;
}

function boundsOf({ minimum, maximum, exclusiveMinimum: above, exclusiveMaximum: below }) {
  const far = (bound) => bound === undefined || Math.abs(bound) > Number.MAX_SAFE_INTEGER;
  if (far(minimum ?? above ?? maximum ?? below)) return "";
  const words = [
    minimum !== undefined && `at least ${minimum}`, above !== undefined && `more than ${above}`,
    maximum !== undefined && `at most ${maximum}`, below !== undefined && `less than ${below}`,
  ];
  return words.filter(Boolean).join(", ");
}

function structured(schema, root) {
  if (schema.type === "array") {
    const items = resolved(schema.items ?? {}, root);
    const lines = items.length > 0 && items.every(isScalar);
    return lines ? { kind: "list", name: "a list", item: scalar(items) } : { kind: "json", name: "a list" };
  }
  if (schema.properties !== undefined && Object.keys(schema.properties).length > 0) {
    return { kind: "group", name: "options", schema };
  }
  const value = schema.patternProperties ? Object.values(schema.patternProperties)[0] : schema.additionalProperties;
  return typeof value === "object" ? { kind: "map", name: "names with values", value } : { kind: "json", name: "JSON" };
}

/** The part of a union that a value is of; the first for none. */
export function partOf(parts, value) {
  if (value === undefined || value === null) return parts[0];
  const kinds = Array.isArray(value) ? ["list", "json"] : typeof value === "object" ? ["group", "map", "json"] : ["choice", "text"];
  return parts.find((part) => kinds.includes(part.kind)) ?? parts[0];
}

const NUMBER = /^-?(?:\d+\.?\d*|\.\d+)(?:e[-+]?\d+)?$/i;

/** Return a typed text as a value: a number if the control takes numbers, otherwise the text; undefined if it is empty. */
export function typedValue(control, text) {
  const trimmed = text.trim();
  if (trimmed === "") return undefined;
  if (control.takesNumbers && NUMBER.test(trimmed) && Number.isFinite(Number(trimmed))) return Number(trimmed);
  return control.takesText ? text : trimmed;
}

/** Return the placeholder of an empty control: the inherited value, the default, or an example. */
export function placeholderOf(schema, inherited, kind) {
  const shown = (value) => (kind === "list" && Array.isArray(value) ? value.map(shownValue).join(", ") : shownValue(value));
  if (inherited !== undefined) return `${shown(inherited)} (from <<)`;
  const standard = schema.default;
  if (standard !== undefined && standard !== null && !isEmpty(standard)) return shown(standard);
  const example = schema.examples?.[0];
  return example === undefined ? "" : `for example ${shown(example)}`;
}

function isEmpty(value) {
  return typeof value === "object" && Object.keys(value).length === 0;
}

export function shownValue(value) {
  return typeof value === "string" ? value : JSON.stringify(value);
}
