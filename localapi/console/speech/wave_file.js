/** WAV files of 16-bit samples in one channel: the only kind that the server writes. */

const HEADER_BYTES = 44;

function textAt(view, at) {
  return String.fromCharCode(...new Uint8Array(view.buffer, view.byteOffset + at, 4));
}

/** Return the start of the samples of a WAV file and their rate; null while its header is not complete. */
export function readHeader(bytes) {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  let sampleRateHz = null;
  for (let at = 12; at + 8 <= bytes.length;) {
    const [name, length] = [textAt(view, at), view.getUint32(at + 4, true)];
    if (name === "data") {
      return { offset: at + 8, sampleRateHz };
    }
    if (name === "fmt " && at + 16 <= bytes.length) {
      sampleRateHz = view.getUint32(at + 12, true);
    }
    at += 8 + length + (length % 2);
  }
  return null;
}

/** A whole file of these samples, with its length. A streamed file's own header does not know it. */
export function waveFile(samples, sampleRateHz) {
  const header = new DataView(new ArrayBuffer(HEADER_BYTES));
  const text = (at, word) => [...word].forEach((letter, index) => header.setUint8(at + index, letter.charCodeAt(0)));
  text(0, "RIFF");
  header.setUint32(4, HEADER_BYTES - 8 + samples.length, true);
  text(8, "WAVEfmt ");
  header.setUint32(16, 16, true);
  header.setUint16(20, 1, true);
  header.setUint16(22, 1, true);
  header.setUint32(24, sampleRateHz, true);
  header.setUint32(28, sampleRateHz * 2, true);
  header.setUint16(32, 2, true);
  header.setUint16(34, 16, true);
  text(36, "data");
  header.setUint32(40, samples.length, true);
  return new Blob([header, samples], { type: "audio/wav" });
}

/** Several pieces of bytes as one. */
export function joined(pieces) {
  const all = new Uint8Array(pieces.reduce((length, piece) => length + piece.length, 0));
  let at = 0;
  for (const piece of pieces) {
    all.set(piece, at);
    at += piece.length;
  }
  return all;
}
