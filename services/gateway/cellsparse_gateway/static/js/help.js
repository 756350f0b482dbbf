/** The sheet of keys. */
import * as api from './api.js';
import { html, useEffect, useRef, useState } from './html.js';
import { TOOLS } from './tools/all.js';

/** @type {[string[], string][]} */
const KEYS = [
  [['A', 'Enter'], 'Accept the proposal or prediction under the cursor'],
  [['Shift A'], 'Accept all predictions in sight'],
  [['X', 'Delete'], 'Delete the cell; a prediction becomes background'],
  [['N'], 'Not a cell: mark as background'],
  [['Z', 'Shift Z'], 'Undo / redo, 100 steps'],
  [['T'], 'Train'],
  [['Tab'], 'Next suggestion, if some are open; else next predicted cell, then the next image'],
  [['A', 'R', 'N'], 'Suggestion: accept / redraw / not a cell'],
  [['S'], 'Suggest which cells to mark next'],
  [['Shift Tab'], 'From the image to the tools'],
  [['Shift wheel', 'Page up', 'Page down'], 'Larger or smaller proposal'],
  [['[', ']'], 'Size of the brush'],
  [['Alt'], 'Brush erases'],
  [['Wheel', '+', '-'], 'Zoom'],
  [['Space', 'Right button'], 'Drag the image'],
  [['0'], 'Whole image'],
  [['Arrow keys'], 'Move the cursor; with Shift one pixel, with Alt far'],
  [['Enter'], 'Click; with a drawing tool begin and end a stroke'],
  [[',', '.'], 'Plane of a stack'],
  [['H', 'P', 'B'], 'Show or hide marks / prediction / background'],
  [['Escape'], 'Give up the stroke'],
  [['?'], 'This sheet'],
];

/** @param {{onClose: () => void}} properties */
export function Help({ onClose }) {
  const dialog = useRef(null);
  const [prompters, setPrompters] = useState(/** @type {any[]} */ ([]));
  useEffect(() => {
    api.status().then((now) => setPrompters(now.prompters ?? [])).catch(() => {});
    /** @type {any} */ (dialog.current)?.showModal();
  }, []);
  const row = (/** @type {string[]} */ keys, /** @type {string} */ meaning) =>
    html`<div><dt>${keys.map((key) => html`<kbd>${key}</kbd>`)}</dt><dd>${meaning}</dd></div>`;
  return html`
    <dialog ref=${dialog} class="sheet" aria-labelledby="help-title" onClose=${onClose}
      onClick=${(/** @type {any} */ e) => e.target === dialog.current && /** @type {any} */ (dialog.current).close()}>
      <h2 id="help-title">Keys</h2>
      <dl class="keys">
        ${TOOLS.map((tool) => row([tool.key.toUpperCase()], `${tool.label}: ${tool.hint}`))}
        ${KEYS.map(([keys, meaning]) => row(keys, meaning))}
      </dl>
      ${prompters.length > 0 && html`
        <p class="note">Proposals: ${prompters.map(({ name, title, licence }) => `${title || name}${licence ? ` (${licence})` : ''}`).join('; ')}. <a class="file-link" href="#/prompters">Add one</a></p>
      `}
      <button class="primary" onClick=${() => /** @type {any} */ (dialog.current).close()}>Close</button>
    </dialog>
  `;
}
