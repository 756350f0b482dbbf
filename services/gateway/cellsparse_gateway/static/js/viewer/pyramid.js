/** Where tiles lie: pure arithmetic of levels, tiles and the view. Coordinates are pixels of the full image. */

export const TILE = 512;

/**
 * @typedef {{width: number, height: number, levels: number}} Pyramid
 * @typedef {{x: number, y: number, scale: number}} View left upper corner, and screen pixels per image pixel
 * @typedef {{x: number, y: number, width: number, height: number}} Rect
 * @typedef {{level: number, x: number, y: number}} Place
 */

/**
 * @param {Pyramid} pyramid
 * @param {number} level
 * @returns {{width: number, height: number}} size of a level; each halves the one before, rounded up
 */
export function levelSize({ width, height }, level) {
  const step = 2 ** level;
  return { width: Math.ceil(width / step), height: Math.ceil(height / step) };
}

/**
 * The coarsest level that still has a pixel for each screen pixel.
 * @param {number} scale
 * @param {number} levels
 */
export function chooseLevel(scale, levels) {
  const wanted = Math.floor(Math.log2(1 / scale) + 1e-9);
  return Math.min(Math.max(wanted, 0), levels - 1);
}

/**
 * Tiles of a level that a rectangle touches, those nearest to its middle first.
 * @param {Pyramid} pyramid
 * @param {number} level
 * @param {Rect} rect
 * @returns {Place[]}
 */
export function tilesIn(pyramid, level, rect) {
  const size = levelSize(pyramid, level);
  const step = 2 ** level * TILE;
  const last = { x: Math.ceil(size.width / TILE) - 1, y: Math.ceil(size.height / TILE) - 1 };
  const left = Math.max(0, Math.floor(rect.x / step));
  const top = Math.max(0, Math.floor(rect.y / step));
  const right = Math.min(last.x, Math.ceil((rect.x + rect.width) / step) - 1);
  const bottom = Math.min(last.y, Math.ceil((rect.y + rect.height) / step) - 1);
  const places = [];
  for (let y = top; y <= bottom; y += 1) for (let x = left; x <= right; x += 1) places.push({ level, x, y });
  const middle = { x: (rect.x + rect.width / 2) / step - 0.5, y: (rect.y + rect.height / 2) / step - 0.5 };
  const away = (/** @type {Place} */ place) => (place.x - middle.x) ** 2 + (place.y - middle.y) ** 2;
  return places.sort((a, b) => away(a) - away(b));
}

/**
 * @param {Pyramid} pyramid
 * @param {Place} place
 * @returns {{width: number, height: number}} size of a tile in its own pixels
 */
export function tileSize(pyramid, { level, x, y }) {
  const size = levelSize(pyramid, level);
  return { width: Math.min(TILE, size.width - x * TILE), height: Math.min(TILE, size.height - y * TILE) };
}

/**
 * @param {Place} place
 * @param {number} plane
 */
export const tileKey = ({ level, x, y }, plane) => `${plane}/${level}/${x}/${y}`;

/**
 * The view that shows the whole image.
 * @param {Pyramid} pyramid
 * @param {number} width of the screen
 * @param {number} height of the screen
 * @returns {View}
 */
export function fit({ width: imageWidth, height: imageHeight }, width, height) {
  const scale = 0.96 * Math.min(width / imageWidth, height / imageHeight);
  return { x: imageWidth / 2 - width / 2 / scale, y: imageHeight / 2 - height / 2 / scale, scale };
}

/**
 * Zooms so that the point under (x, y) of the screen stays there.
 * @param {View} view
 * @param {number} factor
 * @param {number} x
 * @param {number} y
 * @returns {View}
 */
export function zoomAt(view, factor, x, y) {
  const scale = Math.min(Math.max(view.scale * factor, 1 / 256), 64);
  return { x: view.x + x / view.scale - x / scale, y: view.y + y / view.scale - y / scale, scale };
}

/**
 * Moves a view so that part of the image stays in sight.
 * @param {View} view
 * @param {Pyramid} pyramid
 * @param {number} width
 * @param {number} height
 * @returns {View}
 */
export function clampView(view, pyramid, width, height) {
  const across = width / view.scale;
  const down = height / view.scale;
  return {
    x: Math.min(Math.max(view.x, -across * 0.8), pyramid.width - across * 0.2),
    y: Math.min(Math.max(view.y, -down * 0.8), pyramid.height - down * 0.2),
    scale: view.scale,
  };
}

/**
 * @param {Rect} rect
 * @param {Pyramid} pyramid
 * @returns {Rect} the part inside the image, of whole pixels
 */
export function clip(rect, { width, height }) {
  const left = Math.max(0, Math.floor(rect.x));
  const top = Math.max(0, Math.floor(rect.y));
  const right = Math.min(width, Math.ceil(rect.x + rect.width));
  const bottom = Math.min(height, Math.ceil(rect.y + rect.height));
  return { x: left, y: top, width: Math.max(0, right - left), height: Math.max(0, bottom - top) };
}
