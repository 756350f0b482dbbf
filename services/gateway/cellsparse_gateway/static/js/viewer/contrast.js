/** Pixels to colours: pure functions on typed arrays. */

/** Colours of channels: Okabe and Ito's, which colour-blind people tell apart. The first channel alone is white. */
export const CHANNEL_COLOURS = ['#009e73', '#cc79a7', '#56b4e9', '#e69f00', '#f0e442', '#d55e00', '#0072b2', '#ffffff'];

/**
 * @typedef {{on: boolean, colour: string, low: number, high: number, gamma: number}} ChannelStyle
 * @typedef {Uint8Array | Uint16Array} Pixels
 */

/**
 * @param {string} colour as #rrggbb
 * @returns {[number, number, number]}
 */
export function rgb(colour) {
  const value = Number.parseInt(colour.slice(1), 16);
  return [(value >> 16) & 255, (value >> 8) & 255, value & 255];
}

/**
 * Brightness 0 to 255 for every possible pixel value.
 * @param {number} size 256 or 65536
 * @param {{low: number, high: number, gamma: number}} style
 */
export function brightness(size, { low, high, gamma }) {
  const table = new Uint8Array(size);
  const span = Math.max(high - low, 1e-9);
  for (let value = 0; value < size; value += 1) {
    const share = Math.min(Math.max((value - low) / span, 0), 1);
    table[value] = Math.round(255 * (gamma === 1 ? share : share ** gamma));
  }
  return table;
}

/**
 * Mixes channels additively.
 * @param {{pixels: Pixels, style: ChannelStyle}[]} channels those that are on
 * @param {number} count number of pixels
 * @returns {Uint8ClampedArray} RGBA
 */
export function composite(channels, count) {
  const out = new Uint8ClampedArray(4 * count);
  const words = new Uint32Array(out.buffer);
  if (channels.length === 1) {
    const [{ pixels, style }] = channels;
    const table = brightness(pixels.BYTES_PER_ELEMENT === 1 ? 256 : 65536, style);
    const colours = new Uint32Array(256);
    const [red, green, blue] = rgb(style.colour);
    for (let v = 0; v < 256; v += 1) {
      const part = (/** @type {number} */ full) => Math.round((v * full) / 255);
      colours[v] = (255 << 24) | (part(blue) << 16) | (part(green) << 8) | part(red);
    }
    for (let i = 0; i < count; i += 1) words[i] = colours[table[pixels[i]]];
    return out;
  }
  for (const { pixels, style } of channels) {
    const table = brightness(pixels.BYTES_PER_ELEMENT === 1 ? 256 : 65536, style);
    const [red, green, blue] = rgb(style.colour).map((full) => full / 255);
    for (let i = 0, o = 0; i < count; i += 1, o += 4) {
      const v = table[pixels[i]];
      out[o] += v * red;
      out[o + 1] += v * green;
      out[o + 2] += v * blue;
    }
  }
  for (let o = 3; o < out.length; o += 4) out[o] = 255;
  return out;
}

/**
 * The black and white of a histogram's tails.
 * @param {Pixels} pixels
 * @param {number} [share] of the pixels that may be cut off at each end
 * @returns {{low: number, high: number}}
 */
export function autoRange(pixels, share = 0.002) {
  const counts = new Uint32Array(pixels.BYTES_PER_ELEMENT === 1 ? 256 : 65536);
  for (const value of pixels) counts[value] += 1;
  const limit = pixels.length * share;
  let low = 0;
  for (let sum = counts[0]; sum <= limit && low < counts.length - 1; sum += counts[low]) low += 1;
  let high = counts.length - 1;
  for (let sum = counts[high]; sum <= limit && high > 0; sum += counts[high]) high -= 1;
  return { low, high: Math.max(high, low + 1) };
}
