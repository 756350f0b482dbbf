/** Label numbers and masks as text: zlib and base64, with the browser's own compressor. */

/** @param {Uint8Array} bytes */
export function toBase64(bytes) {
  let text = '';
  for (let i = 0; i < bytes.length; i += 0x8000) text += String.fromCharCode(...bytes.subarray(i, i + 0x8000));
  return btoa(text);
}

/**
 * @param {string} text
 * @returns {Uint8Array}
 */
export function fromBase64(text) {
  const characters = atob(text);
  const bytes = new Uint8Array(characters.length);
  for (let i = 0; i < bytes.length; i += 1) bytes[i] = characters.charCodeAt(i);
  return bytes;
}

/**
 * @param {Uint8Array} bytes
 * @param {CompressionStream | DecompressionStream} through
 */
async function piped(bytes, through) {
  const stream = new Blob([/** @type {any} */ (bytes)]).stream().pipeThrough(/** @type {any} */ (through));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

/** @param {Uint8Array} bytes */
export const deflate = (bytes) => piped(bytes, new CompressionStream('deflate'));
/** @param {Uint8Array} bytes */
export const inflate = (bytes) => piped(bytes, new DecompressionStream('deflate'));

/** @param {Uint32Array} labels */
export const encodeLabels = async (labels) =>
  toBase64(await deflate(new Uint8Array(labels.buffer, labels.byteOffset, labels.byteLength)));

/** @param {string} text */
export const decodeLabels = async (text) => new Uint32Array((await inflate(fromBase64(text))).buffer);

/** @param {string} text */
export const decodeMask = async (text) => inflate(fromBase64(text));

/**
 * Runs of a mask, 0 first: [3, 2, 1] is 0 0 0 1 1 0. Small and synchronous, for what must survive a reload.
 * @param {Uint8Array} data
 */
export function runs(data) {
  const lengths = [];
  let value = 0;
  let from = 0;
  for (let i = 0; i <= data.length; i += 1) {
    if (i < data.length && data[i] === value) continue;
    lengths.push(i - from);
    from = i;
    value ^= 1;
  }
  return lengths;
}

/**
 * @param {number[]} lengths
 * @param {number} size
 */
export function fromRuns(lengths, size) {
  const data = new Uint8Array(size);
  let at = 0;
  lengths.forEach((length, index) => {
    if (index % 2) data.fill(1, at, at + length);
    at += length;
  });
  return data;
}
