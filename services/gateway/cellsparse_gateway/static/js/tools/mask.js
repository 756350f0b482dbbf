/**
 * Strokes as masks: pure functions. A mask is a rectangle of the image with 1 where the stroke paints.
 *
 * @typedef {{x: number, y: number, width: number, height: number, data: Uint8Array}} Mask
 * @typedef {[number, number]} Point image coordinates; pixel (x, y) covers x to x + 1
 * @typedef {import('../viewer/pyramid.js').Pyramid} Pyramid
 */
import { clip } from '../viewer/pyramid.js';

/** Pixels that one stroke may span: what the server takes in one edit. */
export const MAX_PIXELS = 16e6;

/**
 * An empty mask around points.
 * @param {Point[]} points
 * @param {number} radius
 * @param {Pyramid} image
 * @returns {Mask}
 */
function emptyAround(points, radius, image) {
  const xs = points.map(([x]) => x);
  const ys = points.map(([, y]) => y);
  const left = Math.min(...xs) - radius - 1;
  const top = Math.min(...ys) - radius - 1;
  const rect = clip({ x: left, y: top, width: Math.max(...xs) + radius + 1 - left, height: Math.max(...ys) + radius + 1 - top }, image);
  if (rect.width * rect.height > MAX_PIXELS) throw new RangeError('This stroke is too large: zoom in and paint a smaller part.');
  return { ...rect, data: new Uint8Array(rect.width * rect.height) };
}

/**
 * The track of a round brush.
 * @param {Point[]} points
 * @param {number} radius
 * @param {Pyramid} image
 * @returns {Mask}
 */
export function brushMask(points, radius, image) {
  const mask = emptyAround(points, radius, image);
  const stamp = (/** @type {number} */ cx, /** @type {number} */ cy) => {
    const reach = Math.max(radius, 0.5);
    for (let y = Math.max(Math.floor(cy - reach), mask.y); y <= Math.min(cy + reach, mask.y + mask.height - 1); y += 1) {
      const half = reach * reach - (y + 0.5 - cy) ** 2;
      if (half < 0) continue;
      const wide = Math.sqrt(half);
      const from = Math.max(Math.ceil(cx - wide - 0.5), mask.x);
      const to = Math.min(Math.floor(cx + wide - 0.5), mask.x + mask.width - 1);
      if (to >= from) mask.data.fill(1, (y - mask.y) * mask.width + from - mask.x, (y - mask.y) * mask.width + to - mask.x + 1);
    }
    const px = Math.floor(cx) - mask.x;
    const py = Math.floor(cy) - mask.y;
    if (px >= 0 && py >= 0 && px < mask.width && py < mask.height) mask.data[py * mask.width + px] = 1;
  };
  points.forEach(([x, y], index) => {
    const [fromX, fromY] = points[Math.max(index - 1, 0)];
    const steps = Math.max(1, Math.ceil(Math.hypot(x - fromX, y - fromY) / Math.max(radius / 2, 0.5)));
    for (let step = 1; step <= steps; step += 1) {
      stamp(fromX + ((x - fromX) * step) / steps, fromY + ((y - fromY) * step) / steps);
    }
  });
  return mask;
}

/**
 * The inside of a closed line, by the even-odd rule at pixel centres, and the line's own pixels.
 * @param {Point[]} points
 * @param {Pyramid} image
 * @returns {Mask}
 */
export function polygonMask(points, image) {
  const mask = emptyAround(points, 1, image);
  for (let row = 0; row < mask.height; row += 1) {
    const y = mask.y + row + 0.5;
    /** @type {number[]} */
    const crossings = [];
    points.forEach(([x1, y1], index) => {
      const [x0, y0] = points[(index + points.length - 1) % points.length];
      if (y0 <= y !== y1 <= y) crossings.push(x0 + ((y - y0) / (y1 - y0)) * (x1 - x0));
    });
    crossings.sort((a, b) => a - b);
    for (let i = 0; i + 1 < crossings.length; i += 2) {
      const from = Math.max(Math.ceil(crossings[i] - 0.5), mask.x);
      const to = Math.min(Math.ceil(crossings[i + 1] - 0.5), mask.x + mask.width);
      if (to > from) mask.data.fill(1, row * mask.width + from - mask.x, row * mask.width + to - mask.x);
    }
  }
  return mask;
}

/**
 * Fills holes: places that no path of unmasked pixels joins to the border, in place.
 * @param {Uint8Array} data
 * @param {number} width
 * @param {number} height
 */
export function fillHoles(data, width, height) {
  const outside = new Uint8Array(data.length);
  /** @type {number[]} */
  const stack = [];
  const visit = (/** @type {number} */ i) => {
    if (!data[i] && !outside[i]) {
      outside[i] = 1;
      stack.push(i);
    }
  };
  for (let x = 0; x < width; x += 1) {
    visit(x);
    visit((height - 1) * width + x);
  }
  for (let y = 0; y < height; y += 1) {
    visit(y * width);
    visit(y * width + width - 1);
  }
  while (stack.length) {
    const i = /** @type {number} */ (stack.pop());
    const x = i % width;
    if (x > 0) visit(i - 1);
    if (x < width - 1) visit(i + 1);
    if (i >= width) visit(i - width);
    if (i < data.length - width) visit(i + width);
  }
  for (let i = 0; i < data.length; i += 1) if (!outside[i]) data[i] = 1;
}

/**
 * The part without empty rows and columns; null if nothing is set.
 * @param {Mask} mask
 * @returns {Mask | null}
 */
export function trim(mask) {
  let [left, right, top, bottom] = [mask.width, -1, mask.height, -1];
  for (let y = 0, i = 0; y < mask.height; y += 1) {
    for (let x = 0; x < mask.width; x += 1, i += 1) {
      if (!mask.data[i]) continue;
      if (x < left) left = x;
      if (x > right) right = x;
      if (y < top) top = y;
      bottom = y;
    }
  }
  if (right < 0) return null;
  const width = right - left + 1;
  const height = bottom - top + 1;
  const data = new Uint8Array(width * height);
  for (let y = 0; y < height; y += 1) {
    const from = (y + top) * mask.width + left;
    data.set(mask.data.subarray(from, from + width), y * width);
  }
  return { x: mask.x + left, y: mask.y + top, width, height, data };
}

/**
 * @param {Mask} mask
 * @param {number} x
 * @param {number} y
 */
export function covers(mask, x, y) {
  const column = Math.floor(x) - mask.x;
  const row = Math.floor(y) - mask.y;
  return column >= 0 && row >= 0 && column < mask.width && row < mask.height && mask.data[row * mask.width + column] === 1;
}

/**
 * Connected parts (4 neighbours) of a mask, numbered from 1.
 * @param {Uint8Array} data
 * @param {number} width
 * @returns {{parts: Int32Array, sizes: number[]}} sizes[0] belongs to part 1
 */
export function connectedParts(data, width) {
  const parts = new Int32Array(data.length);
  /** @type {number[]} */
  const sizes = [];
  for (let start = 0; start < data.length; start += 1) {
    if (!data[start] || parts[start]) continue;
    const number = sizes.length + 1;
    let size = 0;
    const stack = [start];
    parts[start] = number;
    while (stack.length) {
      const i = /** @type {number} */ (stack.pop());
      size += 1;
      const x = i % width;
      for (const [j, inside] of [[i - 1, x > 0], [i + 1, x < width - 1], [i - width, true], [i + width, true]]) {
        const next = /** @type {number} */ (j);
        if (inside && next >= 0 && next < data.length && data[next] && !parts[next]) {
          parts[next] = number;
          stack.push(next);
        }
      }
    }
    sizes.push(size);
  }
  return { parts, sizes };
}
