/** What the tests of the page's modules share. */

export const STATIC = new URL('../../../../services/gateway/cellsparse_gateway/static/js/', import.meta.url);

/** @param {string} name of a module of the page */
export const load = (name) => import(new URL(name, STATIC).href);

/**
 * Label numbers as text: "." is 0, "-" background, a letter from "a" on a cell of number 2, 3, ...
 * @param {string[]} rows
 */
export function labels(rows) {
  const width = rows[0].length;
  const data = new Uint32Array(rows.length * width);
  rows.forEach((row, y) => [...row].forEach((letter, x) => {
    data[y * width + x] = letter === '.' ? 0 : letter === '-' ? 1 : letter.charCodeAt(0) - 95;
  }));
  return { data, width, height: rows.length, levels: 1 };
}

/**
 * A mask as text: "#" is in it.
 * @param {string[]} rows
 * @param {number} x
 * @param {number} y
 */
export function mask(rows, x = 0, y = 0) {
  const data = Uint8Array.from(rows.join(''), (letter) => Number(letter === '#'));
  return { x, y, width: rows[0].length, height: rows.length, data };
}

/**
 * A stroke's effect, as text; new cells are "A", "B", ...
 * @param {{plan: Function, KEEP: number, NEW: number}} module
 * @param {any} stroke
 * @param {string[]} rows
 */
export function after({ plan, KEEP, NEW }, stroke, rows) {
  const image = labels(rows);
  const read = (/** @type {any} */ rect) => {
    const out = new Uint32Array(rect.width * rect.height);
    for (let y = 0; y < rect.height; y += 1) {
      for (let x = 0; x < rect.width; x += 1) out[y * rect.width + x] = image.data[(rect.y + y) * image.width + rect.x + x];
    }
    return out;
  };
  const made = plan({ plane: 0, ...stroke }, read, image);
  for (const patch of made?.patches ?? []) {
    patch.data.forEach((/** @type {number} */ value, /** @type {number} */ i) => {
      const at = (patch.y + Math.floor(i / patch.width)) * image.width + patch.x + (i % patch.width);
      if (value !== KEEP) image.data[at] = value;
    });
  }
  const letter = (/** @type {number} */ value) =>
    value === 0 ? '.' : value === 1 ? '-' : String.fromCharCode(value >= NEW ? 65 + value - NEW : value + 95);
  return rows.map((row, y) => [...row].map((_, x) => letter(image.data[y * image.width + x])).join(''));
}
