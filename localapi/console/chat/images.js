/** Pictures and recordings that go along with a message: taken from files, pictures made small enough to send. */

import { html } from "../dom.js";

/** Longer sides are made shorter: no model looks closer, and photos of telephones are large. */
const LONGEST_SIDE = 2048;
/** A file of at most this size is sent as it is. */
const SMALL_BYTES = 1_000_000;
const AS_THEY_ARE = ["image/png", "image/jpeg", "image/webp", "image/gif", "image/bmp"];
const JPEG_QUALITY = 0.9;

/** The files of a paste or a drop, if there are any. */
export function filesIn(transfer) {
  return [...(transfer?.files ?? [])];
}

/** Make {name, url, kind} of each file, with a data: URL; `kind` is "image" or "audio". Throws an error that names a file
 * that is neither. */
export async function imagesOf(files) {
  const images = [];
  for (const file of files) {
    const kind = file.type.startsWith("audio/") ? "audio" : "image";
    const url = await (kind === "audio" ? asRead(file) : urlOf(file));
    images.push({ name: file.name || "pasted image", url, kind });
  }
  return images;
}

async function urlOf(file) {
  let picture;
  try {
    picture = await createImageBitmap(file);
  } catch {
    throw new Error(`This browser cannot read ${file.name || "the pasted data"} as an image.`);
  }
  try {
    const share = Math.min(1, LONGEST_SIDE / Math.max(picture.width, picture.height));
    if (share === 1 && file.size <= SMALL_BYTES && AS_THEY_ARE.includes(file.type)) {
      return await asRead(file);
    }
    return drawn(picture, share);
  } finally {
    picture.close();
  }
}

function asRead(file) {
  return new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.onload = () => resolve(reader.result);
    reader.onerror = () => reject(reader.error);
    reader.readAsDataURL(file);
  });
}

/** The picture as a JPEG, on white where it is transparent. */
function drawn(picture, share) {
  const canvas = document.createElement("canvas");
  canvas.width = Math.max(1, Math.round(picture.width * share));
  canvas.height = Math.max(1, Math.round(picture.height * share));
  const brush = canvas.getContext("2d");
  brush.fillStyle = "white";
  brush.fillRect(0, 0, canvas.width, canvas.height);
  brush.drawImage(picture, 0, 0, canvas.width, canvas.height);
  return canvas.toDataURL("image/jpeg", JPEG_QUALITY);
}

/** True if a model reads all of these. */
export function reads(model, images) {
  return images.every(({ kind }) => model?.input?.includes(kind) ?? false);
}

/** Throw an error if a dialect takes no recordings, and there are some. */
export function checkRecordings(dialect, images) {
  if (!dialect.hears && images.some(({ kind }) => kind === "audio")) {
    throw new Error("This API does not accept recordings. Choose chat completions or responses.");
  }
}

/** Small pictures in a row. `remove` takes the number of one that is not wanted; without it, they only are shown. */
export function Thumbnails({ images, remove }) {
  return html`<ul class="thumbnails" aria-label="Images">
    ${images.map(
      ({ name, url, kind }, at) =>
        html`<li key=${`${at} ${name}`}>
          ${kind === "audio" ? html`<span class="recording">${name}</span>` : html`<img src=${url} alt=${name} />`}
          ${
            remove &&
            html`<button
              type="button"
              class="button small icon"
              aria-label=${`Remove ${name}`}
              title="Remove"
              onClick=${() => remove(at)}
            >
              ✕
            </button>`
          }
        </li>`,
    )}
  </ul>`;
}
