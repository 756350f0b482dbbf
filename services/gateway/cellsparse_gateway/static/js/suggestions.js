/** Suggestions: what to mark next, one after the other, over all images of a project. */
import * as api from './api.js';
import { BACKGROUND, PROPOSED } from './colours.js';
import { decodeMask } from './store/codec.js';
import { covers } from './tools/mask.js';
import { maskLines } from './viewer/outlines.js';

/** Cells that are asked for at once. */
export const COUNT = 8;
/** Side of what is shown around a suggestion, in sides of the suggestion. */
const AROUND = 7;
const CELL_VALUE = 1;
const GROUND_VALUE = 2;

/**
 * @typedef {import('./tools/mask.js').Mask} Mask
 * @typedef {import('./tools/mask.js').Point} Point
 * @typedef {'open' | 'accepted' | 'rejected' | 'redrawn'} Decision
 * @typedef {{image: string, plane: number, kind: 'cell' | 'background', reason: string, cell: Mask | null, ground: Mask, decision: Decision,
 *   paths: {cell: Path2D, ground: Path2D} | null}} Suggestion
 */

/**
 * A suggestion as the server gives it.
 * @param {any} found
 * @returns {Promise<Suggestion>}
 */
export async function read({ image_id: image, plane = 0, kind, reason, data, x, y, width, height }) {
  const values = await decodeMask(data);
  const part = (/** @type {number} */ wanted) => ({ x, y, width, height, data: Uint8Array.from(values, (value) => Number(value === wanted)) });
  const isCell = kind === 'SUGGESTION_KIND_CELL';
  return { image, plane, kind: isCell ? 'cell' : 'background', reason, cell: isCell ? part(CELL_VALUE) : null, ground: part(GROUND_VALUE), decision: 'open', paths: null };
}

/** The suggestions of one project; they stay while one goes from image to image. */
export class Queue {
  /** @type {Suggestion[]} */
  all = [];
  index = -1;
  busy = false;
  #asked = 0;

  /** @param {string} project */
  constructor(project) {
    this.project = project;
  }

  /** @returns {Suggestion | null} */
  get current() {
    return this.all[this.index] ?? null;
  }

  /** Suggestions without a decision. */
  get open() {
    return this.all.filter(({ decision }) => decision === 'open').length;
  }

  /**
   * Asks the server for new ones, in the place of the old ones.
   * @returns {Promise<number>} how many there are
   */
  async ask() {
    this.busy = true;
    try {
      // Another draw of images with every question: a large project is seen bit by bit.
      const answer = await api.suggest(this.project, { count: COUNT, seed: this.#asked });
      this.#asked += 1;
      this.all = await Promise.all((answer.suggestions ?? []).map(read));
      this.index = -1;
    } finally {
      this.busy = false;
    }
    return this.all.length;
  }

  /** Goes to the next one without a decision; null if there is none. */
  next() {
    for (let step = 1; step <= this.all.length; step += 1) {
      const index = (this.index + step + this.all.length) % this.all.length;
      if (this.all[index].decision === 'open') {
        this.index = index;
        return this.all[index];
      }
    }
    this.index = -1;
    return null;
  }

  /** Forgets all. */
  clear() {
    this.all = [];
    this.index = -1;
  }
}

/** @type {Map<string, Queue>} */
const queues = new Map();

/** @param {string} project */
export function queueOf(project) {
  const found = queues.get(project) ?? new Queue(project);
  queues.set(project, found);
  return found;
}

/**
 * Whether a point is on what is suggested.
 * @param {Suggestion} suggestion
 * @param {Point} at
 */
export const isOn = ({ cell, ground }, [x, y]) => covers(cell ?? ground, x, y);

/**
 * A pixel of what is suggested, near its middle.
 * @param {Suggestion} suggestion
 * @returns {Point}
 */
export function middle({ cell, ground }) {
  const mask = cell ?? ground;
  let [best, nearest] = [0, Infinity];
  mask.data.forEach((set, i) => {
    const away = Math.hypot((i % mask.width) + 0.5 - mask.width / 2, Math.floor(i / mask.width) + 0.5 - mask.height / 2);
    if (set && away < nearest) [best, nearest] = [i, away];
  });
  return [mask.x + (best % mask.width) + 0.5, mask.y + Math.floor(best / mask.width) + 0.5];
}

/**
 * The view that shows a suggestion with what is around it.
 * @param {Suggestion} suggestion
 * @param {number} width of the canvas
 * @param {number} height of the canvas
 */
export function viewOf({ ground: { x, y, width: wide, height: high } }, width, height) {
  const scale = Math.min(width, height) / (AROUND * Math.max(wide, high, 8));
  return { x: x + wide / 2 - width / 2 / scale, y: y + high / 2 - height / 2 / scale, scale };
}

/** @param {Mask} mask */
function pathOf(mask) {
  const lines = maskLines(mask.data, mask.width, mask.height);
  const path = new Path2D();
  for (let i = 0; i < lines.length; i += 4) {
    path.moveTo(mask.x + lines[i], mask.y + lines[i + 1]);
    path.lineTo(mask.x + lines[i + 2], mask.y + lines[i + 3]);
  }
  return path;
}

/**
 * Draws the cell as a line, and background as a dashed one.
 * @param {Suggestion} suggestion
 * @param {CanvasRenderingContext2D} context
 * @param {{x: number, y: number, scale: number}} view
 * @param {boolean} ring whether the background around a cell is drawn
 */
export function drawSuggestion(suggestion, context, { x, y, scale }, ring) {
  suggestion.paths ??= { cell: suggestion.cell ? pathOf(suggestion.cell) : new Path2D(), ground: pathOf(suggestion.ground) };
  context.save();
  context.translate(-x * scale, -y * scale);
  context.scale(scale, scale);
  context.lineCap = 'square';
  const ground = ring || suggestion.kind === 'background';
  for (const [width, dark] of /** @type {[number, boolean][]} */ ([[4.5, true], [2.5, false]])) {
    context.lineWidth = width / scale;
    context.strokeStyle = dark ? 'rgba(0, 0, 0, 0.6)' : PROPOSED;
    context.setLineDash([]);
    context.stroke(suggestion.paths.cell);
    if (!ground) continue;
    context.strokeStyle = dark ? 'rgba(0, 0, 0, 0.6)' : BACKGROUND;
    context.setLineDash([4 / scale, 4 / scale]);
    context.stroke(suggestion.paths.ground);
  }
  context.restore();
}
