/** Draws an image, label numbers over it and what tools show, on one canvas. */
import { chooseLevel, clampView, fit, TILE, tilesIn, tileSize, zoomAt } from './pyramid.js';

/** From this many screen pixels per image pixel on, outlines are lines along pixel edges, not bitmaps. */
const CRISP = 1.2;
/** And from here on with a dark rim. */
const RIMMED = 2.5;
const GROUND = '#14171c';

/**
 * @typedef {import('./pyramid.js').View} ViewPort
 * @typedef {{tiles: import('./labels.js').LabelTiles | import('./difference.js').DifferenceTiles, visible: boolean}} Shown
 */

export class Viewer {
  /** @type {ViewPort} */
  view = { x: 0, y: 0, scale: 1 };
  /** @type {Shown[]} from below to above */
  labels = [];
  /** @type {import('./tiles.js').ImageTiles | null} */
  tiles = null;
  plane = 0;
  width = 1;
  height = 1;
  #asked = false;
  #fitted = false;

  /**
   * @param {HTMLCanvasElement} canvas
   * @param {any} image ProjectImage
   * @param {{draw?: (context: CanvasRenderingContext2D, viewer: Viewer) => void, moved?: (view: ViewPort) => void}} told
   */
  constructor(canvas, image, told = {}) {
    this.canvas = canvas;
    this.image = image;
    this.told = told;
    this.context = /** @type {CanvasRenderingContext2D} */ (canvas.getContext('2d', { alpha: false }));
    this.observer = new ResizeObserver(() => this.#resize());
    this.observer.observe(canvas);
  }

  get ratio() {
    return window.devicePixelRatio || 1;
  }

  #resize() {
    const { width, height } = this.canvas.getBoundingClientRect();
    if (!width || !height) return;
    const middle = this.toImage(this.width / 2, this.height / 2);
    this.width = width;
    this.height = height;
    this.canvas.width = Math.round(width * this.ratio);
    this.canvas.height = Math.round(height * this.ratio);
    if (!this.#fitted) this.fit();
    else this.set({ ...this.view, x: middle[0] - width / 2 / this.view.scale, y: middle[1] - height / 2 / this.view.scale });
    this.#draw();
  }

  fit() {
    this.#fitted = this.width > 1;
    this.set(fit(this.image, this.width, this.height));
  }

  /** @param {ViewPort} view */
  set(view) {
    this.view = clampView(view, this.image, this.width, this.height);
    // Says where the image is, for whoever works on the page from outside, such as its tests.
    this.canvas.dataset.view = [this.view.x, this.view.y, this.view.scale].map((value) => value.toFixed(4)).join(' ');
    this.told.moved?.(this.view);
    this.redraw();
  }

  /**
   * @param {number} factor
   * @param {number} [x] of the canvas
   * @param {number} [y] of the canvas
   */
  zoom(factor, x = this.width / 2, y = this.height / 2) {
    this.set(zoomAt(this.view, factor, x, y));
  }

  /**
   * @param {number} dx screen pixels
   * @param {number} dy screen pixels
   */
  pan(dx, dy) {
    this.set({ ...this.view, x: this.view.x - dx / this.view.scale, y: this.view.y - dy / this.view.scale });
  }

  /**
   * @param {number} x of the canvas
   * @param {number} y of the canvas
   * @returns {[number, number]}
   */
  toImage(x, y) {
    return [this.view.x + x / this.view.scale, this.view.y + y / this.view.scale];
  }

  /**
   * @param {number} x of the image
   * @param {number} y of the image
   * @returns {[number, number]}
   */
  toScreen(x, y) {
    return [(x - this.view.x) * this.view.scale, (y - this.view.y) * this.view.scale];
  }

  /** The part of the image in sight. */
  get rect() {
    return { x: this.view.x, y: this.view.y, width: this.width / this.view.scale, height: this.height / this.view.scale };
  }

  redraw = () => {
    if (this.#asked) return;
    this.#asked = true;
    requestAnimationFrame(() => {
      this.#asked = false;
      this.#draw();
    });
  };

  #draw() {
    const { context, ratio, view } = this;
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    context.fillStyle = GROUND;
    context.fillRect(0, 0, this.width, this.height);
    const level = chooseLevel(view.scale * ratio, this.image.levels);
    const places = tilesIn(this.image, level, this.rect);
    this.#drawImage(level, places);
    for (const { tiles, visible } of this.labels) if (visible) this.#drawLabels(tiles, level, places);
    this.told.draw?.(context, this);
  }

  /**
   * @param {number} level
   * @param {import('./pyramid.js').Place[]} places
   */
  #drawImage(level, places) {
    const { context, tiles, plane } = this;
    if (!tiles) return;
    const found = places.map((place) => /** @type {const} */ ([place, tiles.get(place, plane)]));
    context.imageSmoothingEnabled = this.view.scale * 2 ** level < 1.5;
    if (found.some(([, bitmap]) => !bitmap)) {
      for (const place of tilesIn(this.image, this.image.levels - 1, this.rect)) {
        const bitmap = tiles.get(place, plane);
        if (bitmap) this.#place(place, bitmap);
      }
    }
    for (const [place, bitmap] of found) if (bitmap) this.#place(place, bitmap);
  }

  /**
   * @param {import('./labels.js').LabelTiles | import('./difference.js').DifferenceTiles} tiles
   * @param {number} level
   * @param {import('./pyramid.js').Place[]} places
   */
  #drawLabels(tiles, level, places) {
    const { context, plane, view } = this;
    const crisp = level === 0 && view.scale >= CRISP;
    context.imageSmoothingEnabled = view.scale * 2 ** level < 1;
    for (const place of places) {
      const bitmap = tiles.bitmap(place, plane, crisp);
      if (bitmap) this.#place(place, bitmap);
    }
    if (!crisp) return;
    context.save();
    context.translate(-view.x * view.scale, -view.y * view.scale);
    context.scale(view.scale, view.scale);
    context.lineCap = 'square';
    const [red, green, blue] = tiles.style.outline;
    const rim = view.scale >= RIMMED ? [[4, 'rgba(0, 0, 0, 0.55)']] : [];
    for (const [width, colour] of [...rim, [view.scale >= RIMMED ? 2 : 1.6, `rgb(${red}, ${green}, ${blue})`]]) {
      context.lineWidth = Number(width) / view.scale;
      context.strokeStyle = String(colour);
      for (const place of places) {
        const lines = tiles.lines(place, plane);
        if (lines) context.stroke(lines);
      }
    }
    context.restore();
  }

  /**
   * Draws a tile between whole device pixels, so that no seam shows beside its neighbours.
   * @param {import('./pyramid.js').Place} place
   * @param {ImageBitmap} bitmap
   */
  #place(place, bitmap) {
    const step = 2 ** place.level;
    const size = tileSize(this.image, place);
    const round = (/** @type {number} */ value) => Math.round(value * this.ratio) / this.ratio;
    const [left, top] = this.toScreen(place.x * TILE * step, place.y * TILE * step).map(round);
    const ends = this.toScreen((place.x * TILE + size.width) * step, (place.y * TILE + size.height) * step);
    const [right, bottom] = ends.map(round);
    this.context.drawImage(bitmap, left, top, right - left, bottom - top);
  }

  close() {
    this.observer.disconnect();
    this.tiles?.close();
    for (const { tiles } of this.labels) tiles.close();
  }
}
