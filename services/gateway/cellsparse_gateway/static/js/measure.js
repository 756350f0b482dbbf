/** Scores of two models on a project's marks, and what exactly they were measured on. */
import * as api from './api.js';
import { html, useEffect, useState } from './html.js';
import { counted } from './words.js';

const IOU = 0.5;
/** Most models that a chain of "trained on from" is followed through. */
const MOST_ANCESTORS = 100;

/**
 * What a model and those that it was trained on from have seen.
 * @typedef {{trained: string[], watched: string[], known: boolean}} Seen
 *   trained: names of items it learned from. watched: names of items that chose its weights and thresholds. known: false
 *   if a dataset is gone or a model was imported.
 * @typedef {{words: string, images: string[]}} Group what to measure on: words for people, image ids
 */

/**
 * Whether an item of a dataset was made of an image, as far as names tell: of a large image there are several items.
 * @param {string} item
 * @param {string} image
 */
export function isOf(item, image) {
  const name = image.replace(/[^A-Za-z0-9._ -]+/g, '-').replace(/^[._ -]+/, '').slice(0, 180).trimEnd() || 'image';
  return item === name || (item.startsWith(`${name} `) && /^\d+$/.test(item.slice(name.length + 1)));
}

/**
 * @param {any} image ProjectImage
 * @returns {boolean} whether every pixel is labelled
 */
export const isDense = (image) => image.cells > 0 && image.labelled_pixels === image.height * image.width * Math.max(image.planes, 1);

/**
 * What to measure two models on: marks that neither was trained on where there are some, and dense labels.
 * @param {any[]} images ProjectImages
 * @param {Seen[]} seen of each model, one or two
 * @returns {Group[]}
 */
export function groups(images, seen) {
  const annotated = images.filter(({ cells }) => cells > 0);
  const wasIn = (/** @type {any} */ image, /** @type {'trained' | 'watched'} */ how) => seen.some((one) => one[how].some((item) => isOf(item, image.name)));
  const known = seen.every((one) => one.known);
  const held = known ? annotated.filter((image) => !wasIn(image, 'trained')) : [];
  const none = seen.length > 1 ? 'neither model was' : 'the model was not';
  const who = seen.length > 1 ? 'the models' : 'the model';
  const describe = (/** @type {any[]} */ chosen, /** @type {boolean} */ dense) => {
    const cells = counted(chosen.reduce((sum, image) => sum + image.cells, 0), 'cell');
    const where = counted(chosen.length, 'image');
    const what = dense ? `All ${cells} of ${where} with every pixel labelled` : `The ${cells} marked in ${where}`;
    if (!known) return `${what}. What ${who} learned from is not known any more: the scores may be too good.`;
    if (!chosen.every((image) => held.includes(image))) return `${what}, some of which ${who} learned from: the scores are too good.`;
    const watched = chosen.some((image) => wasIn(image, 'watched'));
    return `${what}, which ${none} trained on.${watched ? ' They did choose weights and thresholds.' : ''}`;
  };
  const marks = held.length ? held : annotated;
  const all = annotated.filter(isDense);
  const dense = all.some((image) => held.includes(image)) ? all.filter((image) => held.includes(image)) : all;
  const same = dense.length === marks.length && dense.every((image) => marks.includes(image));
  const ids = (/** @type {any[]} */ chosen) => chosen.map(({ id }) => id);
  const found = [];
  if (marks.length && !same) found.push({ words: describe(marks, false), images: ids(marks) });
  if (dense.length) found.push({ words: describe(dense, true), images: ids(dense) });
  return found;
}

/**
 * @param {any} model
 * @param {any[]} models all that there are
 * @returns {Promise<Seen>}
 */
async function seenBy(model, models) {
  /** @type {Seen} */
  const seen = { trained: [], watched: [], known: true };
  let at = model;
  for (let turn = 0; at && turn < MOST_ANCESTORS; turn += 1) {
    const items = at.dataset_id ? await itemsOf(at.dataset_id) : null;
    if (!items) return { ...seen, known: false };
    for (const { name, split } of items) (split === 'SPLIT_TRAIN' ? seen.trained : split === 'SPLIT_VAL' ? seen.watched : []).push(name);
    const before = at.initial_model;
    at = before ? models.find(({ id }) => id === before) : null;
    if (before && !at) return { ...seen, known: false };
  }
  return seen;
}

/**
 * @param {string} dataset
 * @returns {Promise<any[] | null>} null: it is gone
 */
async function itemsOf(dataset) {
  try {
    return await api.list(`/datasets/${dataset}/items`, 'items');
  } catch (error) {
    if (error instanceof api.ApiError && error.status === 404) return null;
    throw error;
  }
}

/**
 * Measures models on a project's marks as they are now.
 * @param {string} project
 * @param {any[]} chosen one or two models
 * @returns {Promise<{words: string, scores: number[]}[]>} F1 of each model
 */
export async function measure(project, chosen) {
  const [images, models] = await Promise.all([api.images(project), api.models()]);
  const seen = await Promise.all(chosen.map((model) => seenBy(model, models)));
  const rows = [];
  for (const { words, images: ids } of groups(images, seen)) {
    const dataset = await api.createDataset(project, { test_image_ids: ids });
    try {
      const scores = [];
      for (const model of chosen) {
        const { report } = await api.evaluate({ model_id: model.id, dataset_id: dataset.id, split: 'SPLIT_TEST', ious: [IOU] });
        scores.push(report.scores[0]?.f1 ?? 0);
      }
      rows.push({ words, scores });
    } finally {
      await api.deleteDataset(dataset.id).catch(() => {}); // it is in nobody's way
    }
  }
  return rows;
}

/** @param {{project: string, models: any[], fail: (error: unknown) => void}} properties models: one or two */
export function Measured({ project, models, fail }) {
  const [rows, setRows] = useState(/** @type {{words: string, scores: number[]}[] | null} */ (null));
  const [busy, setBusy] = useState(false);
  const key = models.map(({ id }) => id).join(' ');
  useEffect(() => setRows(null), [key]);
  const start = async () => {
    setBusy(true);
    try {
      setRows(await measure(project, models));
    } catch (error) {
      fail(error);
    } finally {
      setBusy(false);
    }
  };
  const value = (/** @type {number} */ score, /** @type {number} */ n) => html`<span><i class=${n ? 'swatch second' : 'swatch predicted'}></i>${'AB'[n]} <b>${score.toFixed(2)}</b></span>`;
  return html`
    <section class="measured" aria-label="Scores" aria-live="polite">
      <button id="measure" disabled=${busy} onClick=${start}>${busy ? 'Measuring ...' : 'Measure on marks'}</button>
      ${!busy && rows?.length === 0 && html`<p class="note">No cell is marked in this project: there is nothing to measure on.</p>`}
      ${!busy && rows && rows.length > 0 && html`
        <div>
          ${rows.map(({ words, scores }) => html`<p class="score">${scores.map(value)}<span class="quiet">${words}</span></p>`)}
          <p class="note">F1 at IoU 0.5: 1 is best. A found cell counts if it shares half of the area that it and a marked one cover together. Where not every pixel is labelled, cells found on unlabelled pixels do not count.</p>
        </div>
      `}
    </section>
  `;
}
