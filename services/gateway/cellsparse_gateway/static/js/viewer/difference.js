/** Where two layers differ, drawn like a layer of its own. */
import { paint } from './painter.js';
import { tileKey } from './pyramid.js';

/** @typedef {import('./labels.js').LabelTiles} LabelTiles */

export class DifferenceTiles {
  /** @type {Map<string, {bitmap?: ImageBitmap, of: string, drawing: boolean}>} */
  #drawn = new Map();

  /**
   * @param {LabelTiles} first
   * @param {LabelTiles} second
   * @param {() => void} changed
   */
  constructor(first, second, changed) {
    this.first = first;
    this.second = second;
    this.changed = changed;
    this.style = first.style;
  }

  /**
   * @param {import('./pyramid.js').Place} place
   * @param {number} plane
   * @returns {ImageBitmap | undefined}
   */
  bitmap(place, plane) {
    const tiles = [this.first.tile(place, plane), this.second.tile(place, plane)];
    const [first, second] = tiles;
    if (!first || !second) return undefined;
    const key = tileKey(place, plane);
    const drawn = this.#drawn.get(key) ?? { of: '', drawing: false };
    this.#drawn.set(key, drawn);
    const of = `${first.version} ${second.version}`;
    if (drawn.of !== of && !drawn.drawing) this.#draw(drawn, of, first, second);
    return drawn.bitmap;
  }

  /**
   * @param {{bitmap?: ImageBitmap, of: string, drawing: boolean}} drawn
   * @param {string} of
   * @param {import('./labels.js').Tile} first
   * @param {import('./labels.js').Tile} second
   */
  async #draw(drawn, of, first, second) {
    drawn.drawing = true;
    const { width, height } = first;
    const colours = [this.first.style.outline, this.second.style.outline];
    drawn.bitmap = await paint('difference', { first: first.data, second: second.data, width, height, colours });
    drawn.of = of;
    drawn.drawing = false;
    this.changed();
  }

  /** Its lines are those of the two layers. */
  lines() {
    return undefined;
  }

  close() {
    for (const { bitmap } of this.#drawn.values()) bitmap?.close();
    this.#drawn.clear();
  }
}
