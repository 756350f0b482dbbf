/** Makes bitmaps of tiles beside the page's own thread: fetches pixels, applies contrast, draws outlines. */
import { autoRange, composite } from './contrast.js';
import { rasterDifference, rasterOutlines } from './outlines.js';

/** Bytes of pixels that are kept, the last used. */
const KEPT_BYTES = 192e6;

/** @type {Map<string, Uint8Array | Uint16Array>} in order of last use */
const kept = new Map();
let keptBytes = 0;

/**
 * @param {string} url
 * @param {string} dtype
 * @returns {Promise<Uint8Array | Uint16Array>}
 */
async function pixelsOf(url, dtype) {
  const known = kept.get(url);
  if (known) {
    kept.delete(url);
    kept.set(url, known);
    return known;
  }
  const answer = await fetch(url);
  if (!answer.ok) throw new Error(`A part of the image did not come: the server answered ${answer.status}.`);
  const buffer = await answer.arrayBuffer();
  const pixels = dtype === 'uint8' ? new Uint8Array(buffer) : new Uint16Array(buffer);
  kept.set(url, pixels);
  keptBytes += pixels.byteLength;
  for (const [oldest, old] of kept) {
    if (keptBytes <= KEPT_BYTES) break;
    kept.delete(oldest);
    keptBytes -= old.byteLength;
  }
  return pixels;
}

const work = {
  /** @param {any} job */
  async image({ channels, dtype, width, height }) {
    const loaded = await Promise.all(
      channels.map(async (/** @type {any} */ { url, style }) => ({ pixels: await pixelsOf(url, dtype), style })),
    );
    return createImageBitmap(new ImageData(/** @type {any} */ (composite(loaded, width * height)), width, height));
  },
  /** @param {any} job */
  async labels({ data, width, height, style }) {
    return createImageBitmap(new ImageData(/** @type {any} */ (rasterOutlines(data, width, height, style)), width, height));
  },
  /** @param {any} job */
  async difference({ first, second, width, height, colours }) {
    const pixels = rasterDifference(first, second, width * height, colours);
    return createImageBitmap(new ImageData(/** @type {any} */ (pixels), width, height));
  },
  /** @param {any} job */
  async range({ url, dtype }) {
    return autoRange(await pixelsOf(url, dtype));
  },
};

self.onmessage = async ({ data: { id, kind, job } }) => {
  try {
    const value = await work[/** @type {keyof typeof work} */ (kind)](job);
    const moved = value instanceof ImageBitmap ? [value] : [];
    self.postMessage({ id, value }, /** @type {any} */ (moved));
  } catch (error) {
    self.postMessage({ id, error: error instanceof Error ? error.message : String(error) });
  }
};
