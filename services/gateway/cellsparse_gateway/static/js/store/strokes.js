/**
 * What strokes do to label numbers: pure functions. A stroke is kept as what a person did, so that it can be repeated on
 * label numbers that someone else has changed meanwhile.
 *
 * @typedef {import('../tools/mask.js').Mask} Mask
 * @typedef {import('../viewer/pyramid.js').Rect} Rect
 * @typedef {import('../viewer/labels.js').Patch} Patch
 * @typedef {{kind: 'cell' | 'accept' | 'erase' | 'background' | 'delete' | 'lasso' | 'reject' | 'merge' | 'split' | 'suggested',
 *   plane: number, masks: Mask[], target?: number}} Stroke
 *   cell: masks[0] becomes a new cell, or part of cell `target`. accept: every mask becomes a cell where nothing is
 *   labelled. erase: takes labels away. background: marks what is not labelled. delete: removes cell `target`, which
 *   masks[0] touches. lasso: removes the cells that lie mostly inside. reject: `target`, or what is free, becomes
 *   background. merge: the cells under masks[0] become the first of them. split: cuts the cells under masks[0].
 *   suggested: masks[0] becomes a cell where nothing is labelled, the others background.
 */
import { connectedParts, fillHoles } from '../tools/mask.js';
import { KEEP, touchesBorder } from '../viewer/labels.js';
import { BACKGROUND, FIRST_CELL } from '../viewer/outlines.js';
import { clip } from '../viewer/pyramid.js';

/** In a patch, this + i is the i-th new cell. */
export const NEW = 0x80000000;
/** Cells that were drawn and are not saved yet have numbers from here on. */
export const UNSAVED = 0xc0000000;
/** A mask is accepted with others if at least this share of it is free. */
const FREE_SHARE = 0.8;
/** Pixels by which a rectangle can grow to hold a whole cell. */
const LARGEST_MARGIN = 2048;

/**
 * @typedef {{patches: Patch[], created: number}} Plan
 * @typedef {(rect: Rect) => Uint32Array} Read
 */

/**
 * What a stroke writes.
 * @param {Stroke} stroke
 * @param {Read} read label numbers as they are now
 * @param {{width: number, height: number, levels: number}} image
 * @returns {Plan | null} null: nothing
 */
export function plan(stroke, read, image) {
  const patches = [];
  let created = 0;
  for (const mask of stroke.masks) {
    const made = RULES[stroke.kind](stroke, mask, read, image, created);
    if (!made) continue;
    const { created: more = 0, ...patch } = made;
    if (patch.data.every((value) => value === KEEP)) continue;
    patches.push(patch);
    created += more;
  }
  return patches.length ? { patches, created } : null;
}

/**
 * Whether a mask can be accepted with others: nearly nothing under it is labelled.
 * @param {Mask} mask
 * @param {Uint32Array} numbers label numbers of its rectangle
 */
export function isFree(mask, numbers) {
  let [size, free] = [0, 0];
  mask.data.forEach((set, i) => {
    size += set;
    free += set && numbers[i] === 0 ? 1 : 0;
  });
  return size > 0 && free >= FREE_SHARE * size;
}

/** @type {Record<string, (stroke: Stroke, mask: Mask, read: Read, image: any, created: number) => (Patch & {created?: number}) | null>} */
const RULES = {
  cell({ target }, mask, read, image, created) {
    const rect = target ? clip(grown(mask, 64), image) : boxOf(mask);
    const numbers = read(rect);
    const whole = within(mask, rect);
    if (target) numbers.forEach((number, i) => number === target && (whole[i] = 1));
    fillHoles(whole, rect.width, rect.height);
    const data = map(numbers, (number, i) => (whole[i] && number < FIRST_CELL ? (target ?? NEW + created) : KEEP));
    return { ...rect, data, created: target ? 0 : 1 };
  },
  accept(_, mask, read, image, created) {
    const numbers = read(boxOf(mask));
    if (!isFree(mask, numbers)) return null;
    const data = map(numbers, (number, i) => (mask.data[i] && number === 0 ? NEW + created : KEEP));
    return { ...boxOf(mask), data, created: 1 };
  },
  suggested(stroke, mask, read, image, created) {
    if (mask !== stroke.masks[0]) return RULES.background(stroke, mask, read, image, created);
    const data = map(read(boxOf(mask)), (number, i) => (mask.data[i] && number === 0 ? NEW + created : KEEP));
    return { ...boxOf(mask), data, created: 1 };
  },
  erase(_, mask, read) {
    const data = map(read(boxOf(mask)), (number, i) => (mask.data[i] && number !== 0 ? 0 : KEEP));
    return { ...boxOf(mask), data };
  },
  background(_, mask, read) {
    const data = map(read(boxOf(mask)), (number, i) => (mask.data[i] && number === 0 ? BACKGROUND : KEEP));
    return { ...boxOf(mask), data };
  },
  delete({ target }, mask, read, image) {
    const { rect, numbers } = wholeCells(mask, read, image, (number) => number === target);
    return { ...rect, data: map(numbers, (number) => (number === target ? 0 : KEEP)) };
  },
  reject({ target }, mask, read, image) {
    if (!target) return RULES.background({ kind: 'background', plane: 0, masks: [] }, mask, read, image, 0);
    const { rect, numbers } = wholeCells(mask, read, image, (number) => number === target);
    return { ...rect, data: map(numbers, (number) => (number === target ? BACKGROUND : KEEP)) };
  },
  lasso(_, mask, read, image) {
    const inside = read(boxOf(mask));
    const touched = new Set(inside.filter((number, i) => mask.data[i] && number >= FIRST_CELL));
    const { rect, numbers } = wholeCells(mask, read, image, (number) => touched.has(number));
    const taken = within(mask, rect);
    /** @type {Map<number, number>} */
    const balance = new Map();
    numbers.forEach((number, i) => {
      if (touched.has(number)) balance.set(number, (balance.get(number) ?? 0) + (taken[i] ? 1 : -1));
    });
    const gone = (/** @type {number} */ number) => (balance.get(number) ?? -1) > 0;
    return { ...rect, data: map(numbers, (number) => (gone(number) ? 0 : KEEP)) };
  },
  merge(_, mask, read, image) {
    const inside = read(boxOf(mask));
    const touched = [...new Set(inside.filter((number, i) => mask.data[i] && number >= FIRST_CELL))];
    if (touched.length < 2) return null;
    const others = new Set(touched.slice(1));
    const { rect, numbers } = wholeCells(mask, read, image, (number) => touched.includes(number));
    return { ...rect, data: map(numbers, (number) => (others.has(number) ? touched[0] : KEEP)) };
  },
  split(_, mask, read, image, created) {
    const inside = read(boxOf(mask));
    const touched = [...new Set(inside.filter((number, i) => mask.data[i] && number >= FIRST_CELL))];
    if (!touched.length) return null;
    const { rect, numbers } = wholeCells(mask, read, image, (number) => touched.includes(number));
    const cut = within(mask, rect);
    const data = new Uint32Array(numbers.length).fill(KEEP);
    let made = 0;
    for (const label of touched) made += cutCell(label, numbers, cut, rect.width, data, created + made);
    return made ? { ...rect, data, created: made } : null;
  },
};

/**
 * Gives all parts of a cell but the largest new numbers; the pixels of the cut go to a part beside them.
 * @param {number} label
 * @param {Uint32Array} numbers
 * @param {Uint8Array} cut
 * @param {number} width
 * @param {Uint32Array} out
 * @param {number} first number of the first new cell
 * @returns {number} new cells
 */
function cutCell(label, numbers, cut, width, out, first) {
  const rest = Uint8Array.from(numbers, (number, i) => Number(number === label && !cut[i]));
  const { parts, sizes } = connectedParts(rest, width);
  if (sizes.length < 2) return 0;
  const largest = sizes.indexOf(Math.max(...sizes)) + 1;
  /** @type {number[]} */
  let edge = [];
  for (let i = 0; i < numbers.length; i += 1) if (numbers[i] === label && cut[i]) edge.push(i);
  while (edge.length) {
    /** @type {number[]} */
    const given = edge.map((i) => parts[i - 1] || parts[i + 1] || parts[i - width] || parts[i + width] || 0);
    if (!given.some(Boolean)) break;
    edge.forEach((i, n) => given[n] && (parts[i] = given[n]));
    edge = edge.filter((_, n) => !given[n]);
  }
  const named = (/** @type {number} */ part) => NEW + first + part - 1 - (part > largest ? 1 : 0);
  parts.forEach((part, i) => {
    if (part && part !== largest && numbers[i] === label) out[i] = named(part);
  });
  return sizes.length - 1;
}

/**
 * The label numbers around a mask, with the cells that count whole.
 * @param {Mask} mask
 * @param {Read} read
 * @param {any} image
 * @param {(number: number) => boolean} counts
 */
function wholeCells(mask, read, image, counts) {
  for (let margin = 64; ; margin *= 2) {
    const rect = clip(grown(mask, margin), image);
    const numbers = read(rect);
    if (margin >= LARGEST_MARGIN || !touchesBorder(numbers, rect, image, counts)) return { rect, numbers };
  }
}

/** @param {Rect} mask */
const boxOf = ({ x, y, width, height }) => ({ x, y, width, height });

/**
 * @param {Rect} rect
 * @param {number} by
 */
const grown = ({ x, y, width, height }, by) => ({ x: x - by, y: y - by, width: width + 2 * by, height: height + 2 * by });

/**
 * A mask in a rectangle that holds it.
 * @param {Mask} mask
 * @param {Rect} rect
 */
function within(mask, rect) {
  const out = new Uint8Array(rect.width * rect.height);
  for (let y = 0; y < mask.height; y += 1) {
    const from = mask.data.subarray(y * mask.width, (y + 1) * mask.width);
    out.set(from, (mask.y - rect.y + y) * rect.width + mask.x - rect.x);
  }
  return out;
}

/**
 * @param {Uint32Array} numbers
 * @param {(number: number, index: number) => number} rule
 */
const map = (numbers, rule) => Uint32Array.from(numbers, rule);
