/** The image's tiles as bitmaps: loaded when they are asked for, kept while they are used. */
import { address, query } from '../api.js';
import { paint } from './painter.js';
import { tileKey, tileSize } from './pyramid.js';

const KEPT = 240;
const AT_ONCE = 8;
/** Milliseconds until a tile that failed is asked for again. */
const AGAIN = 2000;

/**
 * @typedef {import('./pyramid.js').Place} Place
 * @typedef {import('./contrast.js').ChannelStyle} ChannelStyle
 */

/**
 * @param {{id: string}} image
 * @param {Place} place
 * @param {number} plane
 * @param {number} channel
 */
export const tileAddress = (image, { level, x, y }, plane, channel) =>
  new URL(address(`/images/${image.id}/tiles/${level}/${x}/${y}${query({ channel, plane })}`), location.href).href;

export class ImageTiles {
  /** @type {Map<string, {bitmap: ImageBitmap, look: number}>} in order of last use */
  #bitmaps = new Map();
  /** @type {Map<string, number>} time from which on a tile may be asked for again */
  #busy = new Map();
  #look = 0;

  /**
   * @param {any} image ProjectImage
   * @param {ChannelStyle[]} channels
   * @param {() => void} changed
   * @param {(sentence: string) => void} failed
   */
  constructor(image, channels, changed, failed) {
    this.image = image;
    this.channels = channels;
    this.changed = changed;
    this.failed = failed;
  }

  /**
   * Shows the image in another way; old bitmaps stay until the new ones are there.
   * @param {ChannelStyle[]} channels
   */
  restyle(channels) {
    this.channels = channels;
    this.#look += 1;
    this.changed();
  }

  /**
   * @param {Place} place
   * @param {number} plane
   * @returns {ImageBitmap | undefined} what is there now; the rest is on its way
   */
  get(place, plane) {
    const key = tileKey(place, plane);
    const found = this.#bitmaps.get(key);
    if (found) {
      this.#bitmaps.delete(key);
      this.#bitmaps.set(key, found);
    }
    if (!found || found.look !== this.#look) this.#load(key, place, plane);
    return found?.bitmap;
  }

  get idle() {
    return [...this.#busy.values()].every((time) => time !== Infinity);
  }

  /**
   * @param {string} key
   * @param {Place} place
   * @param {number} plane
   */
  async #load(key, place, plane) {
    const running = [...this.#busy.values()].filter((time) => time === Infinity).length;
    if (running >= AT_ONCE || (this.#busy.get(key) ?? 0) > Date.now()) return;
    this.#busy.set(key, Infinity);
    const look = this.#look;
    const channels = this.channels
      .map((style, channel) => ({ style, url: tileAddress(this.image, place, plane, channel) }))
      .filter(({ style }) => style.on);
    try {
      const bitmap = await paint('image', { channels, dtype: this.image.dtype, ...tileSize(this.image, place) });
      this.#bitmaps.get(key)?.bitmap.close();
      this.#bitmaps.delete(key);
      this.#bitmaps.set(key, { bitmap, look });
      this.#busy.delete(key);
      this.#forget();
      this.changed();
    } catch (error) {
      this.#busy.set(key, Date.now() + AGAIN);
      setTimeout(this.changed, AGAIN);
      this.failed(error instanceof Error ? error.message : String(error));
    }
  }

  #forget() {
    for (const [key, { bitmap }] of this.#bitmaps) {
      if (this.#bitmaps.size <= KEPT) return;
      bitmap.close();
      this.#bitmaps.delete(key);
    }
  }

  /** Frees what the browser holds. */
  close() {
    for (const { bitmap } of this.#bitmaps.values()) bitmap.close();
    this.#bitmaps.clear();
  }
}
