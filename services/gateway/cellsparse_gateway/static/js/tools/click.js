/** Click: a proposal under the cursor; a click makes it a cell. The wheel with Shift goes through smaller and larger ones. */
import * as api from '../api.js';
import { PROPOSED } from '../colours.js';
import { decodeMask } from '../store/codec.js';
import { FIRST_CELL, maskLines } from '../viewer/outlines.js';
import { covers } from './mask.js';

/** Milliseconds that the cursor rests before a proposal is asked for. */
const REST = 70;

/**
 * @typedef {import('./mask.js').Mask} Mask
 * @typedef {import('./mask.js').Point} Point
 * @typedef {import('../stage.js').Stage} Stage
 * @typedef {{masks: Mask[], index: number, best: Mask, from: string, path: Path2D | null}} Proposal
 */

/** @returns {import('./stroke.js').Tool & {step: (stage: Stage, by: number) => Promise<void>, accept: (stage: Stage, at: Point) => Promise<void>, proposal: () => Proposal | null}} */
function clickTool() {
  /** @type {Proposal | null} */
  let proposal = null;
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  let timer;
  /** @type {AbortController | null} */
  let asking = null;
  let asked = 0;

  /** @param {Stage} stage @param {Proposal | null} next */
  const show = (stage, next) => {
    proposal = next;
    stage.viewer.redraw();
  };

  /** @param {Stage} stage @param {Point} at @returns {Promise<Proposal | null>} */
  const ask = async (stage, [x, y]) => {
    asking?.abort();
    asking = new AbortController();
    const answer = await api.prompt(
      stage.image.id,
      {
        method: 'auto',
        plane: stage.plane,
        channel: stage.promptChannel,
        points: [{ x, y, positive: true }],
        box: null,
        scribble: null,
        diameter: stage.image.diameter || null,
        layer: stage.layer?.id ?? '',
      },
      asking.signal,
    );
    const masks = await Promise.all(
      (answer.proposals ?? []).map(async (/** @type {any} */ { data, ...found }) => ({ ...found, data: await decodeMask(data) })),
    );
    if (!masks.length) return null;
    const index = Math.min(answer.best ?? 0, masks.length - 1);
    return { masks, index, best: masks[index], from: answer.prompter ?? '', path: null };
  };

  /** @param {Stage} stage @param {Point} at @returns {Promise<Proposal | null>} */
  const find = async (stage, at) => {
    const [x, y] = at;
    if (x < 0 || y < 0 || x >= stage.image.width || y >= stage.image.height) return null;
    if (stage.annotation.at(x, y, stage.plane) >= FIRST_CELL) return null;
    const predicted = stage.prediction && stage.layerVisible ? await stage.prediction.cellAt(x, y, stage.plane) : null;
    if (predicted) return { masks: [predicted], index: 0, best: predicted, from: 'model', path: null };
    return ask(stage, at);
  };

  /** @param {Stage} stage @param {Point} at @param {boolean} [quiet] */
  const propose = async (stage, at, quiet = false) => {
    asked += 1;
    const number = asked;
    try {
      const found = await find(stage, at);
      if (number === asked) show(stage, found);
    } catch (error) {
      if (error instanceof DOMException && error.name === 'AbortError') return;
      // A proposal is a help: that there is none is said only to those who click.
      if (number === asked && !quiet) stage.fail(error);
    }
  };

  return {
    id: 'click',
    key: '1',
    label: 'Click',
    hint: 'Click a cell to take the outline that is shown. Shift and wheel: smaller or larger.',
    proposal: () => proposal,
    hover(stage, at) {
      clearTimeout(timer);
      if (proposal && covers(proposal.best, ...at)) return;
      if (proposal) show(stage, null);
      asked += 1;
      timer = setTimeout(() => propose(stage, at, true), REST);
    },
    begin() {},
    extend() {},
    end(stage) {
      if (stage.pointer) this.accept(stage, stage.pointer);
    },
    cancel() {
      clearTimeout(timer);
      asked += 1;
      asking?.abort();
      proposal = null;
    },
    active: () => false,
    async accept(stage, at) {
      clearTimeout(timer);
      if (stage.annotation.at(...at, stage.plane) >= FIRST_CELL) {
        stage.say('This is a cell already. X deletes it.');
        return;
      }
      if (!proposal || !covers(proposal.best, ...at)) await propose(stage, at);
      if (!proposal) {
        stage.say('No cell was found here: draw it with Outline (2) or Brush (3).');
        return;
      }
      const mask = proposal.masks[proposal.index];
      this.cancel();
      stage.edit({ kind: 'cell', masks: [mask] }, 'Cell added.');
    },
    async step(stage, by) {
      if (!stage.pointer) return;
      if (!proposal) await propose(stage, stage.pointer);
      if (proposal && proposal.from === 'model' && proposal.masks.length === 1) {
        const more = await ask(stage, stage.pointer).catch(() => null);
        if (more && proposal) {
          const masks = [...more.masks, proposal.best].sort((a, b) => area(a) - area(b));
          proposal = { ...proposal, masks, index: masks.indexOf(proposal.best) };
        }
      }
      if (!proposal) return;
      const index = Math.min(Math.max(proposal.index + by, 0), proposal.masks.length - 1);
      show(stage, { ...proposal, index, path: null });
      stage.say(`Proposal ${index + 1} of ${proposal.masks.length}.`);
    },
    draw(stage, context) {
      if (!proposal) return;
      const mask = proposal.masks[proposal.index];
      if (!proposal.path) {
        const lines = maskLines(mask.data, mask.width, mask.height);
        const path = new Path2D();
        for (let i = 0; i < lines.length; i += 4) {
          path.moveTo(mask.x + lines[i], mask.y + lines[i + 1]);
          path.lineTo(mask.x + lines[i + 2], mask.y + lines[i + 3]);
        }
        proposal.path = path;
      }
      const { x, y, scale } = stage.viewer.view;
      context.save();
      context.translate(-x * scale, -y * scale);
      context.scale(scale, scale);
      context.lineCap = 'square';
      for (const [width, colour] of [[4.5, 'rgba(0, 0, 0, 0.6)'], [2.5, PROPOSED]]) {
        context.lineWidth = Number(width) / scale;
        context.strokeStyle = String(colour);
        context.stroke(proposal.path);
      }
      context.restore();
    },
  };
}

/** @param {Mask} mask */
const area = (mask) => mask.data.reduce((sum, value) => sum + value, 0);

export const click = clickTool();
