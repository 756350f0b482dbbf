/** Label numbers to outlines: pure functions. 0 is not labelled, 1 background, 2 and more are cells. */

export const BACKGROUND = 1;
export const FIRST_CELL = 2;

/**
 * @typedef {{outline: [number, number, number], fill: number, background: 'hatch'|'tint'|'none', ground: [number, number, number],
 *   filled?: boolean}} LabelStyle
 */

/**
 * Draws a tile's outlines: every pixel of a cell that has a neighbour of another number; if `filled`, insides only.
 * @param {Uint32Array} labels
 * @param {number} width
 * @param {number} height
 * @param {LabelStyle} style
 * @returns {Uint8ClampedArray} RGBA
 */
export function rasterOutlines(labels, width, height, style) {
  const out = new Uint8ClampedArray(4 * width * height);
  const words = new Uint32Array(out.buffer);
  const word = (/** @type {number[]} */ [red, green, blue], /** @type {number} */ alpha) =>
    ((Math.round(255 * alpha) << 24) | (blue << 16) | (green << 8) | red) >>> 0;
  const line = word(style.outline, 1);
  const inside = word(style.outline, style.fill);
  const tint = word(style.ground, 0.22);
  const faint = word(style.ground, 0.12);
  const stripe = word(style.ground, 0.6);
  for (let y = 0, i = 0; y < height; y += 1) {
    for (let x = 0; x < width; x += 1, i += 1) {
      const label = labels[i];
      if (label === 0) continue;
      if (label === BACKGROUND) {
        if (style.background === 'tint') words[i] = tint;
        else if (style.background === 'hatch') words[i] = (x + y) % 8 < 2 ? stripe : faint;
        continue;
      }
      const edge =
        !style.filled &&
        ((x > 0 && labels[i - 1] !== label) ||
        (x < width - 1 && labels[i + 1] !== label) ||
        (y > 0 && labels[i - width] !== label) ||
        (y < height - 1 && labels[i + width] !== label));
      words[i] = edge ? line : inside;
    }
  }
  return out;
}

/**
 * Colours where only one of two label images has a cell.
 * @param {Uint32Array | null} first
 * @param {Uint32Array | null} second
 * @param {number} count number of pixels
 * @param {[[number, number, number], [number, number, number]]} colours of what only the first, only the second has
 * @returns {Uint8ClampedArray} RGBA
 */
export function rasterDifference(first, second, count, colours) {
  const out = new Uint8ClampedArray(4 * count);
  const words = new Uint32Array(out.buffer);
  const [onlyFirst, onlySecond] = colours.map(([red, green, blue]) => ((150 << 24) | (blue << 16) | (green << 8) | red) >>> 0);
  for (let i = 0; i < count; i += 1) {
    const a = first !== null && first[i] >= FIRST_CELL;
    const b = second !== null && second[i] >= FIRST_CELL;
    if (a !== b) words[i] = a ? onlyFirst : onlySecond;
  }
  return out;
}

/**
 * Lines along the pixel edges of cells, as [x0, y0, x1, y1, ...] in pixels of the tile.
 * @param {Uint32Array} labels
 * @param {number} width
 * @param {number} height
 * @param {number} [first] smallest number that is outlined
 * @returns {number[]}
 */
export function edgeLines(labels, width, height, first = FIRST_CELL) {
  /** @type {number[]} */
  const lines = [];
  const differ = (/** @type {number} */ a, /** @type {number} */ b) => a !== b && (a >= first || b >= first);
  for (let y = 1; y < height; y += 1) {
    for (let x = 0; x < width; ) {
      if (!differ(labels[(y - 1) * width + x], labels[y * width + x])) {
        x += 1;
        continue;
      }
      const from = x;
      while (x < width && differ(labels[(y - 1) * width + x], labels[y * width + x])) x += 1;
      lines.push(from, y, x, y);
    }
  }
  for (let x = 1; x < width; x += 1) {
    for (let y = 0; y < height; ) {
      if (!differ(labels[y * width + x - 1], labels[y * width + x])) {
        y += 1;
        continue;
      }
      const from = y;
      while (y < height && differ(labels[y * width + x - 1], labels[y * width + x])) y += 1;
      lines.push(x, from, x, y);
    }
  }
  return lines;
}

/**
 * Outline of a mask, closed at its own border.
 * @param {Uint8Array} mask
 * @param {number} width
 * @param {number} height
 */
export function maskLines(mask, width, height) {
  const padded = new Uint32Array((width + 2) * (height + 2));
  for (let y = 0; y < height; y += 1) {
    for (let x = 0; x < width; x += 1) if (mask[y * width + x]) padded[(y + 1) * (width + 2) + x + 1] = FIRST_CELL;
  }
  return edgeLines(padded, width + 2, height + 2).map((value) => value - 1);
}
