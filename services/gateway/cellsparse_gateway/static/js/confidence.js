/** Accepting every predicted cell that the model is sure enough of. */
import { html, useEffect, useState } from './html.js';
import { counted } from './words.js';

/** Milliseconds without another stroke after which cells are counted again. */
const CALM = 700;
/** A predicted cell is marked already if the boxes around it and around a mark share at least this much (IoU). */
const SAME = 0.5;
/** Scores are float32, what the slider says is not. */
const ROUNDING = 1e-6;

/**
 * @typedef {{label: number, x: number, y: number, width: number, height: number, plane: number, planes: number, score?: number}} Cell
 */

/**
 * @param {Cell} a
 * @param {Cell} b
 */
function boxIou(a, b) {
  const wide = Math.min(a.x + a.width, b.x + b.width) - Math.max(a.x, b.x);
  const high = Math.min(a.y + a.height, b.y + b.height) - Math.max(a.y, b.y);
  if (wide <= 0 || high <= 0) return 0;
  return (wide * high) / (a.width * a.height + b.width * b.height - wide * high);
}

/**
 * Predicted cells that are not marked yet, as far as boxes tell.
 * @param {Cell[]} predicted
 * @param {Cell[]} marked
 * @returns {Cell[]}
 */
export function openCells(predicted, marked) {
  // Boxes that share half their area are nearer to each other than the larger one is long.
  const size = [...predicted, ...marked].reduce((longest, cell) => Math.max(longest, cell.width, cell.height), 1);
  const column = (/** @type {Cell} */ cell) => Math.floor((cell.x + cell.width / 2) / size);
  const row = (/** @type {Cell} */ cell) => Math.floor((cell.y + cell.height / 2) / size);
  /** @type {Map<string, Cell[]>} */
  const places = new Map();
  for (const cell of marked) {
    const key = `${column(cell)} ${row(cell)}`;
    places.set(key, [...(places.get(key) ?? []), cell]);
  }
  const around = [-1, 0, 1];
  return predicted.filter((cell) =>
    !around.some((dx) => around.some((dy) =>
      places.get(`${column(cell) + dx} ${row(cell) + dy}`)?.some((mark) => boxIou(cell, mark) >= SAME))));
}

/**
 * The confidences of cells, rounded outwards to hundredths.
 * @param {Cell[]} cells
 * @returns {{low: number, middle: number, high: number} | null} null: no cell has one
 */
export function spread(cells) {
  const scores = cells.flatMap(({ score }) => (typeof score === 'number' ? [score] : [])).sort((a, b) => a - b);
  if (!scores.length) return null;
  const down = (/** @type {number} */ score) => Math.floor(score * 100 + 100 * ROUNDING) / 100;
  return { low: down(scores[0]), middle: down(scores[Math.floor(scores.length / 2)]), high: Math.min(1, down(scores[scores.length - 1]) + 0.01) };
}

/**
 * @param {Cell[]} cells
 * @param {number} least
 */
export const above = (cells, least) => cells.filter(({ score }) => typeof score === 'number' && score >= least - ROUNDING);

/**
 * @param {Float64Array} scores ascending
 * @param {number} least
 * @returns {number} how many there are from `least` up, as `above` takes them
 */
export function countAbove(scores, least) {
  let [from, to] = [0, scores.length];
  while (from < to) {
    const middle = (from + to) >> 1;
    if (scores[middle] >= least - ROUNDING) to = middle;
    else from = middle + 1;
  }
  return scores.length - from;
}

/**
 * Where a cell lies among the image's tiles: cells in this order need every tile once.
 * @param {Cell} cell
 */
export const tileOrder = ({ x, y }) => Math.floor(y / 512) * 1e6 + Math.floor(x / 512);

/** @param {{stage: import('./stage.js').Stage}} properties */
export function AcceptAbove({ stage }) {
  // Sorted once: this is drawn again with every move of the mouse.
  const [found, setFound] = useState(/** @type {{range: ReturnType<typeof spread>, scores: Float64Array, exact: boolean} | null} */ (null));
  const [least, setLeast] = useState(/** @type {number | null} */ (null));
  const [busy, setBusy] = useState(false);
  useEffect(() => setLeast(null), [stage, stage.layer?.id]);
  useEffect(() => {
    let gone = false;
    const count = async () => {
      const { all, open, exact } = await stage.scored();
      const scores = Float64Array.from(above(open, 0), ({ score }) => score ?? 0).sort();
      if (!gone) setFound({ range: spread(all), scores, exact });
    };
    const timer = setTimeout(() => count().catch(() => {}), found ? CALM : 0); // counted with the next stroke if it fails
    return () => {
      gone = true;
      clearTimeout(timer);
    };
  }, [stage, stage.layer?.id, stage.layer?.revision, stage.image.cells, stage.image.revision, stage.plane]);
  const range = found?.range;
  if (!found || !range) return null;
  const chosen = Math.min(Math.max(least ?? range.middle, range.low), range.high);
  const taken = countAbove(found.scores, chosen);
  const take = async () => {
    setBusy(true);
    await stage.acceptAbove(chosen);
    setBusy(false);
  };
  return html`
    <label class="slider" title="How sure the model is of a cell, 0 to 1"><span>Confidence</span>
      <input id="confidence" type="range" min=${range.low} max=${range.high} step="0.01" value=${chosen}
        aria-valuetext=${`${chosen.toFixed(2)}: ${counted(taken, 'cell')}`} onInput=${(/** @type {any} */ e) => setLeast(Number(e.target.value))} />
      <output for="confidence">${chosen.toFixed(2)}</output>
    </label>
    <div class="buttons">
      <button id="accept-above" disabled=${busy || !taken} onClick=${take}>${busy ? 'Accepting ...' : `Accept ${found.exact ? '' : 'about '}${counted(taken, 'cell')} from ${chosen.toFixed(2)} up`}</button>
    </div>
  `;
}
