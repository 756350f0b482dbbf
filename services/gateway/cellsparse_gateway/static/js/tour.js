/** Five steps for whoever is here for the first time; each step ends when it is done. */
import { html, useEffect, useState } from './html.js';

const GONE = 'cellsparse.tour';
/** Cells that make a first model. */
const CELLS = 5;

/**
 * @typedef {{cells: number, background: boolean, training: boolean, predicted: boolean, corrected: boolean}} Done
 */

/** @type {{title: string, text: string, at: string, done: (done: Done) => boolean, progress?: (done: Done) => string}[]} */
const STEPS = [
  {
    title: 'Click five cells',
    text: 'Point at a cell: its outline appears. Click to take it.',
    at: 'tool-click',
    done: ({ cells }) => cells >= CELLS,
    progress: ({ cells }) => `${Math.min(cells, CELLS)} of ${CELLS}`,
  },
  {
    title: 'Paint a little background',
    text: 'Take the brush Background (4) and stroke where there is no cell.',
    at: 'tool-background',
    done: ({ background }) => background,
  },
  {
    title: 'Press Train',
    text: 'A model of your own learns from these marks alone.',
    at: 'train',
    done: ({ training, predicted }) => training || predicted,
  },
  {
    title: 'Watch',
    text: 'Orange outlines of what the model sees appear by themselves.',
    at: 'train',
    done: ({ predicted }) => predicted,
  },
  {
    title: 'Correct, and train on',
    text: 'Click good outlines (1). X on a wrong one: not a cell.',
    at: 'correct',
    done: ({ corrected }) => corrected,
  },
];

export const tourGone = () => localStorage.getItem(GONE) === 'gone';

/** @param {{done: Done}} properties */
export function Tour({ done }) {
  const [gone, setGone] = useState(tourGone);
  // Who trains or sees a prediction has no need of the steps before.
  const from = done.predicted ? 4 : done.training ? 3 : 0;
  const index = STEPS.findIndex((step, n) => n >= from && !step.done(done));
  const step = STEPS[index];
  useEffect(() => {
    if (gone || !step) return undefined;
    const target = document.querySelector(`[data-tour="${step.at}"]`);
    target?.classList.add('pointed');
    return () => target?.classList.remove('pointed');
  }, [gone, step?.at]);
  if (gone) return null;
  const close = () => {
    localStorage.setItem(GONE, 'gone');
    setGone(true);
  };
  return html`
    <aside class="tour" aria-label="First steps" id="tour">
      ${step
        ? html`
            <span class="number" aria-hidden="true">${index + 1}</span>
            <p><b>${step.title}${step.progress ? ` (${step.progress(done)})` : ''}.</b> ${step.text}</p>
          `
        : html`<p><b>That is all.</b> Train on whenever you have corrected a few cells. <kbd>?</kbd> shows the keys.</p>`}
      <span class="grow"></span>
      <ol class="pips" aria-hidden="true">${STEPS.map((_, n) => html`<li class=${n < index || !step ? 'done' : n === index ? 'now' : ''}></li>`)}</ol>
      <button class="link" onClick=${close}>${step ? 'Do not show again' : 'Close'}</button>
    </aside>
  `;
}
