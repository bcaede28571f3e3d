/** Finding models by words. */

/** More than one looks through at a glance. */
export const MANY = 8;

/** True if the data of a model contains all of these words. */
export function hasWords(model, words) {
  const { id, aliases, backend, path, state, description } = model;
  const text = [id, ...(aliases ?? []), backend, path, state, description].join(" ").toLowerCase();
  return words
    .toLowerCase()
    .split(/\s+/)
    .every((word) => text.includes(word));
}
