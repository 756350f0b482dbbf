/**
 * Label numbers of an annotation or a layer, by tiles. `confirmed` is what the server holds; `shown` has the strokes on
 * top that are not saved yet.
 */
import { call, query } from '../api.js';
import { edgeLines, FIRST_CELL } from './outlines.js';
import { paint } from './painter.js';
import { clip, TILE, tileKey, tilesIn, tileSize } from './pyramid.js';

const KEPT = 200;
const AT_ONCE = 8;
/** Tiles that are loaded again when someone else has changed something. */
const REFRESHED = 40;
const AGAIN = 2000;
/** In a patch: leave what is there. */
export const KEEP = 0xffffffff;

/**
 * @typedef {import('./pyramid.js').Place} Place
 * @typedef {import('./pyramid.js').Rect} Rect
 * @typedef {{x: number, y: number, width: number, height: number, data: Uint32Array}} Patch
 * @typedef {{place: Place, plane: number, width: number, height: number, data: Uint32Array | null, revision: number,
 *   known: number, version: number, looks: Look[], lines?: Path2D, linesOf: number}} Tile
 * @typedef {{bitmap?: ImageBitmap, drawn: number, drawing: boolean}} Look a bitmap and the version that it shows
 */

/** Label numbers that are needed and not here yet. */
export class MissingTiles extends Error {
  /** @param {Rect} rect */
  constructor(rect) {
    super('These label numbers are still on their way.');
    this.rect = rect;
  }
}

export class LabelTiles {
  /** @type {Map<string, Tile>} in order of last use */
  #tiles = new Map();
  /** @type {Map<string, Uint32Array>} tiles with unsaved strokes */
  #overlay = new Map();
  /** @type {Map<string, number>} */
  #busy = new Map();
  #look = 0;

  /**
   * @param {any} image ProjectImage
   * @param {string} layer id; empty for the annotation
   * @param {import('./outlines.js').LabelStyle} style
   * @param {() => void} changed
   */
  constructor(image, layer, style, changed) {
    this.image = image;
    this.layer = layer;
    this.style = style;
    this.changed = changed;
  }

  /** @param {import('./outlines.js').LabelStyle} style */
  restyle(style) {
    this.style = style;
    this.#look += 1;
    for (const tile of this.#tiles.values()) for (const look of tile.looks) look.drawn = -1;
    this.changed();
  }

  /**
   * @param {Place} place
   * @param {number} plane
   * @returns {Tile | undefined}
   */
  tile(place, plane) {
    const key = tileKey(place, plane);
    const found = this.#tiles.get(key);
    if (found) {
      this.#tiles.delete(key);
      this.#tiles.set(key, found);
      return found;
    }
    const running = [...this.#busy.values()].filter((time) => time === Infinity).length;
    if (running < AT_ONCE && (this.#busy.get(key) ?? 0) <= Date.now()) this.#load(place, plane).catch(() => {});
    return undefined;
  }

  /** @param {Tile} tile */
  shown(tile) {
    return this.#overlay.get(tileKey(tile.place, tile.plane)) ?? tile.data;
  }

  /**
   * @param {Place} place
   * @param {number} plane
   * @param {boolean} [filled] without outlines, which are drawn as lines then
   * @returns {ImageBitmap | undefined}
   */
  bitmap(place, plane, filled = false) {
    const tile = this.tile(place, plane);
    if (!tile) return undefined;
    const look = tile.looks[Number(filled)];
    if (look.drawn !== tile.version && !look.drawing) this.#draw(tile, look, filled);
    return this.shown(tile) ? look.bitmap : undefined;
  }

  /**
   * @param {Tile} tile
   * @param {Look} look
   * @param {boolean} filled
   */
  async #draw(tile, look, filled) {
    const data = this.shown(tile);
    const { version, width, height } = tile;
    if (!data) {
      look.drawn = version;
      return;
    }
    look.drawing = true;
    const style = this.#look;
    const copy = data.slice();
    const bitmap = await paint('labels', { data: copy, width, height, style: { ...this.style, filled } }, [copy.buffer]);
    look.bitmap?.close();
    look.bitmap = bitmap;
    look.drawing = false;
    look.drawn = style === this.#look ? version : -1;
    this.changed();
  }

  /**
   * Outlines of a tile of full resolution along pixel edges, in the image's coordinates.
   * @param {Place} place
   * @param {number} plane
   * @returns {Path2D | undefined}
   */
  lines(place, plane) {
    const tile = this.tile(place, plane);
    const data = tile && this.shown(tile);
    if (!tile || !data) return undefined;
    if (tile.linesOf !== tile.version) {
      const path = new Path2D();
      const lines = edgeLines(data, tile.width, tile.height);
      for (let i = 0; i < lines.length; i += 4) {
        path.moveTo(place.x * TILE + lines[i], place.y * TILE + lines[i + 1]);
        path.lineTo(place.x * TILE + lines[i + 2], place.y * TILE + lines[i + 3]);
      }
      tile.lines = path;
      tile.linesOf = tile.version;
    }
    return tile.lines;
  }

  /**
   * @param {Place} place
   * @param {number} plane
   * @param {number} [known] revision of the image that was read before; 0: unknown
   */
  async #load(place, plane, known = 0) {
    const key = tileKey(place, plane);
    this.#busy.set(key, Infinity);
    try {
      const path = `/images/${this.image.id}/labels/tiles/${place.level}/${place.x}/${place.y}`;
      const answer = await call('GET', path + query({ plane, layer: this.layer }));
      const revision = Number(answer.headers.get('X-Revision') ?? 0);
      const buffer = answer.status === 204 ? null : await answer.arrayBuffer();
      const old = this.#tiles.get(key);
      const tile = old ?? { place, plane, ...tileSize(this.image, place), data: null, revision, known: 0, version: 0,
        looks: [{ drawn: -1, drawing: false }, { drawn: -1, drawing: false }], linesOf: -1 };
      // A stroke may have been saved while this answer was on its way: then the answer is the older of the two.
      if (!old || revision >= old.revision) {
        tile.data = buffer?.byteLength ? new Uint32Array(buffer) : null;
        tile.revision = revision;
        tile.version += 1;
      }
      tile.known = Math.max(known, tile.known, revision);
      this.#tiles.delete(key);
      this.#tiles.set(key, tile);
      this.#busy.delete(key);
      this.#forget();
      this.changed();
    } catch (error) {
      this.#busy.set(key, Date.now() + AGAIN);
      setTimeout(this.changed, AGAIN);
      throw error;
    }
  }

  #forget() {
    for (const [key, tile] of this.#tiles) {
      if (this.#tiles.size <= KEPT) return;
      if (this.#overlay.has(key)) continue;
      for (const look of tile.looks) look.bitmap?.close();
      this.#tiles.delete(key);
    }
  }

  /**
   * Loads the tiles of full resolution in a rectangle.
   * @param {Rect} rect
   * @param {number} plane
   */
  async ensure(rect, plane) {
    const places = tilesIn(this.image, 0, clip(rect, this.image));
    await Promise.all(places.filter((place) => !this.#tiles.has(tileKey(place, plane))).map((p) => this.#load(p, plane)));
  }

  /**
   * Loads again: the tiles in a rectangle, or all that are here.
   * @param {number} known revision of the image that was read before
   * @param {Rect | null} [rect]
   * @param {number} [plane]
   */
  async refresh(known, rect = null, plane = 0) {
    const wanted = rect ? tilesIn(this.image, 0, clip(rect, this.image)).map((place) => ({ place, plane })) : this.#outdated(known);
    await Promise.all(wanted.map((tile) => this.#load(tile.place, tile.plane, known)));
  }

  /**
   * Tiles to load again. Those that were not looked at for long are let go instead.
   * @param {number} known
   */
  #outdated(known) {
    const old = [...this.#tiles].filter(([, tile]) => tile.known < known);
    for (const [key, tile] of old.slice(0, Math.max(0, old.length - REFRESHED))) {
      if (this.#overlay.has(key)) continue;
      for (const look of tile.looks) look.bitmap?.close();
      this.#tiles.delete(key);
    }
    return old.slice(-REFRESHED).map(([, tile]) => tile);
  }

  /**
   * @param {Rect} rect whole pixels inside the image
   * @param {number} plane
   * @param {boolean} [withStrokes] also those that are not saved yet
   * @returns {Uint32Array}
   */
  read(rect, plane, withStrokes = true) {
    const out = new Uint32Array(rect.width * rect.height);
    for (const place of tilesIn(this.image, 0, rect)) {
      const tile = this.#tiles.get(tileKey(place, plane));
      if (!tile) throw new MissingTiles(rect);
      const data = withStrokes ? this.shown(tile) : tile.data;
      if (!data) continue;
      const left = Math.max(rect.x, place.x * TILE);
      const right = Math.min(rect.x + rect.width, place.x * TILE + tile.width);
      const top = Math.max(rect.y, place.y * TILE);
      const bottom = Math.min(rect.y + rect.height, place.y * TILE + tile.height);
      for (let y = top; y < bottom; y += 1) {
        const from = (y - place.y * TILE) * tile.width - place.x * TILE;
        out.set(data.subarray(from + left, from + right), (y - rect.y) * rect.width + left - rect.x);
      }
    }
    return out;
  }

  /**
   * The number at a point, from the finest level that is here; 0 if none is.
   * @param {number} x
   * @param {number} y
   * @param {number} plane
   */
  at(x, y, plane) {
    if (x < 0 || y < 0 || x >= this.image.width || y >= this.image.height) return 0;
    for (let level = 0; level < this.image.levels; level += 1) {
      const px = Math.floor(x / 2 ** level);
      const py = Math.floor(y / 2 ** level);
      const place = { level, x: Math.floor(px / TILE), y: Math.floor(py / TILE) };
      const tile = this.#tiles.get(tileKey(place, plane));
      if (tile) return this.shown(tile)?.[(py - place.y * TILE) * tile.width + px - place.x * TILE] ?? 0;
    }
    return 0;
  }

  /**
   * The revision up to which all tiles in a rectangle are known.
   * @param {Rect} rect
   * @param {number} plane
   */
  base(rect, plane) {
    const tiles = tilesIn(this.image, 0, rect).map((place) => this.#tiles.get(tileKey(place, plane)));
    return Math.min(...tiles.map((tile) => tile?.known ?? 0));
  }

  /**
   * Nobody else changed anything between two revisions: what was known up to the first is known up to the second.
   * @param {number} from
   * @param {number} to
   */
  advance(from, to) {
    for (const tile of this.#tiles.values()) if (tile.known >= from) tile.known = to;
  }

  /**
   * Writes what the server has taken.
   * @param {Patch[]} patches
   * @param {number} plane
   * @param {number} revision
   */
  commit(patches, plane, revision) {
    for (const patch of patches) {
      this.#write(patch, plane, (tile) => {
        tile.data ??= new Uint32Array(tile.width * tile.height);
        tile.revision = revision;
        return tile.data;
      });
    }
    this.changed();
  }

  /**
   * Replaces the unsaved strokes that are shown.
   * @param {(draw: (patches: Patch[], plane: number) => void) => void} redo draws all of them
   */
  overlay(redo) {
    for (const key of this.#overlay.keys()) this.#bump(key);
    this.#overlay.clear();
    redo((patches, plane) => {
      for (const patch of patches) {
        this.#write(patch, plane, (tile, key) => {
          const copy = this.#overlay.get(key) ?? tile.data?.slice() ?? new Uint32Array(tile.width * tile.height);
          this.#overlay.set(key, copy);
          return copy;
        });
      }
    });
    this.changed();
  }

  /** @param {string} key */
  #bump(key) {
    const tile = this.#tiles.get(key);
    if (tile) tile.version += 1;
  }

  /**
   * Writes a patch into the tiles of all levels that are here. Coarser levels take every second, fourth, ... pixel.
   * @param {Patch} patch
   * @param {number} plane
   * @param {(tile: Tile, key: string) => Uint32Array} target
   */
  #write(patch, plane, target) {
    for (let level = 0; level < this.image.levels; level += 1) {
      const step = 2 ** level;
      for (const place of tilesIn(this.image, level, patch)) {
        const key = tileKey(place, plane);
        const tile = this.#tiles.get(key);
        if (!tile) continue;
        const data = target(tile, key);
        tile.version += 1;
        const left = Math.max(Math.ceil(patch.x / step), place.x * TILE);
        const right = Math.min(Math.ceil((patch.x + patch.width) / step), place.x * TILE + tile.width);
        const top = Math.max(Math.ceil(patch.y / step), place.y * TILE);
        const bottom = Math.min(Math.ceil((patch.y + patch.height) / step), place.y * TILE + tile.height);
        for (let y = top; y < bottom; y += 1) {
          const from = (y * step - patch.y) * patch.width - patch.x;
          const to = (y - place.y * TILE) * tile.width - place.x * TILE;
          for (let x = left; x < right; x += 1) {
            const value = patch.data[from + x * step];
            if (value !== KEEP) data[to + x] = value;
          }
        }
      }
    }
  }

  /**
   * The mask of the cell at a point, whole however large it is; null if there is none.
   * @param {number} x
   * @param {number} y
   * @param {number} plane
   * @returns {Promise<import('../tools/mask.js').Mask | null>}
   */
  async cellAt(x, y, plane) {
    await this.ensure({ x: Math.floor(x), y: Math.floor(y), width: 1, height: 1 }, plane);
    const label = this.at(x, y, plane);
    if (label < FIRST_CELL) return null;
    for (let reach = 64; ; reach *= 2) {
      const rect = clip({ x: x - reach, y: y - reach, width: 2 * reach, height: 2 * reach }, this.image);
      await this.ensure(rect, plane);
      const numbers = this.read(rect, plane);
      if (touchesBorder(numbers, rect, this.image, (value) => value === label) && reach < 4096) continue;
      return { ...rect, data: Uint8Array.from(numbers, (value) => Number(value === label)) };
    }
  }

  /** Frees what the browser holds. */
  close() {
    for (const tile of this.#tiles.values()) for (const look of tile.looks) look.bitmap?.close();
    this.#tiles.clear();
  }
}

/**
 * Whether a number reaches the border of a rectangle beyond which the image goes on.
 * @param {Uint32Array} numbers
 * @param {Rect} rect
 * @param {{width: number, height: number}} image
 * @param {(value: number) => boolean} counts
 */
export function touchesBorder(numbers, rect, image, counts) {
  const { width, height } = rect;
  for (let x = 0; x < width; x += 1) {
    if (rect.y > 0 && counts(numbers[x])) return true;
    if (rect.y + height < image.height && counts(numbers[(height - 1) * width + x])) return true;
  }
  for (let y = 0; y < height; y += 1) {
    if (rect.x > 0 && counts(numbers[y * width])) return true;
    if (rect.x + width < image.width && counts(numbers[y * width + width - 1])) return true;
  }
  return false;
}
