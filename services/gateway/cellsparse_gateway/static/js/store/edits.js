/**
 * Saves strokes, one after the other, each as soon as it is drawn. A stroke waits in this tab's storage until the server
 * has it, so that neither a reload nor an outage loses one; where someone else was quicker it is repeated on what is
 * there now.
 */
import * as api from '../api.js';
import { ApiError, pause } from '../api.js';
import { MissingTiles } from '../viewer/labels.js';
import { decodeLabels, encodeLabels, fromRuns, runs } from './codec.js';
import { NEW, plan, UNSAVED } from './strokes.js';

/** Longest pause between two tries, milliseconds. */
const LONGEST_PAUSE = 8000;
/** Conflicts after which a stroke waits a while. */
const CONFLICTS = 10;

/** @typedef {import('./strokes.js').Stroke & {id: string, serial: number}} Pending */

/** @returns {string} a name for this tab, the same after a reload */
export function author() {
  const known = sessionStorage.getItem('cellsparse.author');
  if (known) return known;
  const made = `page-${crypto.randomUUID?.() ?? Math.random().toString(36).slice(2)}`;
  sessionStorage.setItem('cellsparse.author', made);
  return made;
}

export class Edits {
  /** @type {Pending[]} */
  pending = [];
  #serial = 0;
  #working = false;
  #closed = false;
  #known = 0;
  /** @type {Map<number, number>} numbers that the server gave to cells, by those they had before */
  #names = new Map();

  /**
   * @param {any} image ProjectImage
   * @param {import('../viewer/labels.js').LabelTiles} labels
   * @param {{changed: () => void, saved: (revision: number) => void, failed: (sentence: string) => void}} told
   */
  constructor(image, labels, told) {
    this.image = image;
    this.labels = labels;
    this.told = told;
    this.author = author();
    this.offline = false;
    this.#known = image.revision;
    this.#key = `cellsparse.strokes.${image.id}`;
    this.#restore();
  }

  #key = '';

  /** @param {import('./strokes.js').Stroke} stroke */
  add(stroke) {
    this.#serial += 1;
    const id = `${Date.now().toString(36)}-${Math.random().toString(36).slice(2, 10)}`;
    // A stroke may have begun on a cell that was saved before the stroke ended.
    const target = this.#names.get(stroke.target ?? 0) ?? stroke.target;
    this.pending.push({ ...stroke, target, id, serial: this.#serial });
    this.#keep();
    this.show();
    this.told.changed();
    this.#work();
  }

  /** Draws the strokes that are not saved yet over what the server holds. */
  show() {
    /** @type {{rect: any, plane: number} | null} */
    let missing = null;
    this.labels.overlay((draw) => {
      for (const stroke of this.pending) {
        try {
          const made = plan(stroke, (rect) => this.labels.read(rect, stroke.plane), this.image);
          if (made) draw(made.patches.map((patch) => ({ ...patch, data: this.#named(patch.data, stroke.serial) })), stroke.plane);
        } catch (error) {
          if (!(error instanceof MissingTiles)) throw error;
          missing ??= { rect: error.rect, plane: stroke.plane };
        }
      }
    });
    if (missing) {
      const { rect, plane } = /** @type {any} */ (missing);
      this.labels.ensure(rect, plane).then(() => this.show()).catch(() => {});
    }
  }

  /**
   * Waits until all strokes are saved.
   * @returns {Promise<void>}
   */
  async settled() {
    while (this.pending.length && !this.#closed) await pause(50);
  }

  /**
   * @param {'undo' | 'redo'} what
   * @returns {Promise<boolean>} whether there was something to take back or to repeat
   */
  async step(what) {
    await this.settled();
    const answer = await api[what](this.image.id, this.author);
    const patches = answer.patches ?? [];
    for (const { plane = 0, data, ...place } of patches) {
      this.labels.commit([{ ...place, data: await decodeLabels(data) }], plane, answer.revision);
    }
    this.#advance(answer.revision);
    this.told.saved(answer.revision);
    return patches.length > 0;
  }

  /** Whether another tab or person changed the annotation: then fetches what changed. */
  async follow() {
    if (this.pending.length || this.#closed) return;
    const { revision } = await api.image(this.image.id);
    if (revision <= this.#known || this.pending.length) return;
    this.#known = revision;
    await this.labels.refresh(revision);
    this.told.saved(revision);
  }

  /** Stops saving; what is left waits in the tab's storage. */
  close() {
    this.#closed = true;
  }

  async #work() {
    if (this.#working) return;
    this.#working = true;
    let failures = 0;
    let turn = 0;
    while (this.pending.length && !this.#closed) {
      const stroke = this.pending[0];
      try {
        await this.#save(stroke, turn);
        this.#done();
        failures = 0;
        turn = 0;
        this.offline = false;
      } catch (error) {
        if (error instanceof ApiError && error.status === 409) {
          turn += 1;
          await this.#catchUp(stroke).catch(() => {});
          if (turn % CONFLICTS === 0) await pause(LONGEST_PAUSE / 2);
        } else if (error instanceof ApiError && !error.passing) {
          this.#done();
          this.told.failed(`A stroke was not saved. ${error.message}`);
        } else if (error instanceof ApiError) {
          failures += 1;
          this.offline = true;
          this.told.changed();
          await pause(Math.min(LONGEST_PAUSE, 250 * 2 ** failures));
        } else {
          this.#done();
          this.told.failed(`A stroke was not saved. ${error instanceof Error ? error.message : error}`);
        }
      }
      this.told.changed();
    }
    this.#working = false;
  }

  #done() {
    this.pending.shift();
    this.#keep();
    this.show();
  }

  /**
   * @param {Pending} stroke
   * @param {number} turn
   */
  async #save(stroke, turn) {
    const made = await this.#plan(stroke);
    if (!made) return;
    const base = Math.min(...made.patches.map((patch) => this.labels.base(patch, stroke.plane)));
    const patches = await Promise.all(
      made.patches.map(async ({ data, ...place }) => ({ ...place, plane: stroke.plane, data: await encodeLabels(data) })),
    );
    const { revision, new_labels: numbers = [] } = await api.edit(this.image.id, {
      base_revision: base,
      author: this.author,
      request_id: `${stroke.id}-${turn}`,
      patches,
    });
    const isNew = (/** @type {number} */ value) => value >= NEW && value < NEW + made.created;
    const real = made.patches.map((patch) => ({
      ...patch,
      data: patch.data.map((value) => (isNew(value) ? numbers[value - NEW] : value)),
    }));
    this.labels.commit(real, stroke.plane, revision);
    this.#rename(stroke.serial, numbers);
    this.#advance(revision);
    this.told.saved(revision);
  }

  /**
   * @param {Pending} stroke
   */
  async #plan(stroke) {
    for (;;) {
      try {
        return plan(stroke, (rect) => this.labels.read(rect, stroke.plane, false), this.image);
      } catch (error) {
        if (!(error instanceof MissingTiles)) throw error;
        await this.labels.ensure(error.rect, stroke.plane);
      }
    }
  }

  /** @param {Pending} stroke */
  async #catchUp(stroke) {
    const { revision } = await api.image(this.image.id);
    for (const mask of stroke.masks) await this.labels.refresh(revision, mask, stroke.plane);
    await this.labels.refresh(revision);
    this.#known = Math.max(this.#known, revision);
    this.show();
  }

  /** @param {number} revision */
  #advance(revision) {
    if (revision === this.#known + 1) {
      this.labels.advance(this.#known, revision);
      this.#known = revision;
    }
  }

  /**
   * @param {Uint32Array} data
   * @param {number} serial
   */
  #named(data, serial) {
    return data.map((value) => (value >= NEW && value < UNSAVED ? UNSAVED + serial * 1024 + (value - NEW) : value));
  }

  /**
   * Later strokes that belong to a cell which now has its number.
   * @param {number} serial
   * @param {number[]} numbers
   */
  #rename(serial, numbers) {
    numbers.forEach((number, index) => this.#names.set(UNSAVED + serial * 1024 + index, number));
    for (const stroke of this.pending) stroke.target = this.#names.get(stroke.target ?? 0) ?? stroke.target;
  }

  #keep() {
    const kept = this.pending.map((stroke) => ({
      ...stroke,
      masks: stroke.masks.map(({ data, ...place }) => ({ ...place, runs: runs(data) })),
    }));
    try {
      if (kept.length) sessionStorage.setItem(this.#key, JSON.stringify(kept));
      else sessionStorage.removeItem(this.#key);
    } catch {
      this.told.failed('The browser has no room to keep unsaved strokes over a reload: wait until they are saved.');
    }
  }

  #restore() {
    const text = sessionStorage.getItem(this.#key);
    if (!text) return;
    this.pending = JSON.parse(text).map((/** @type {any} */ stroke) => ({
      ...stroke,
      masks: stroke.masks.map((/** @type {any} */ { runs: lengths, ...place }) => ({
        ...place,
        data: fromRuns(lengths, place.width * place.height),
      })),
    }));
    this.#serial = Math.max(0, ...this.pending.map(({ serial }) => serial));
    this.show();
    this.#work();
  }
}
