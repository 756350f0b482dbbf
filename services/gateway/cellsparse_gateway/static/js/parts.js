/** Which part of image files is taken: for files that hold several images, time points or planes. */
import { html } from './html.js';

const AXES = ['YX', 'YXC', 'CYX', 'ZYX', 'ZYXC', 'ZCYX', 'CZYX'];
/** Words of a refusal that a choice here answers. */
const ASKS = /\(--(?:series|time|axes)\b/;

/** @type {import('./api.js').Part} */
export const WHOLE = { axes: '', series: '', time: '', z: '' };

/**
 * Whether the server refused a file because it wants to know more about it.
 * @param {string} sentence
 */
export const asksForPart = (sentence) => ASKS.test(sentence);

/**
 * @param {{part: import('./api.js').Part, open: boolean, onChange: (part: import('./api.js').Part) => void}} properties
 */
export function PartChooser({ part, open, onChange }) {
  const number = (/** @type {'series' | 'time' | 'z'} */ name, /** @type {string} */ title) => html`
    <label>${title}
      <input type="number" min="0" max="999999999" step="1" placeholder="from 0" value=${part[name]} onInput=${(/** @type {any} */ e) => onChange({ ...part, [name]: e.target.value })} />
    </label>
  `;
  return html`
    <details class="part" open=${open}>
      <summary>Take a part of the next files</summary>
      <div class="part-choices">
        ${number('series', 'Image of several (series)')}
        ${number('time', 'Time point (time)')}
        ${number('z', 'Plane of a stack (z)')}
        <label>Axes of the file
          <select value=${part.axes} onChange=${(/** @type {any} */ e) => onChange({ ...part, axes: e.target.value })}>
            <option value="" selected=${!part.axes}>as the file says</option>
            ${AXES.map((axes) => html`<option key=${axes} value=${axes} selected=${part.axes === axes}>${axes}</option>`)}
          </select>
        </label>
      </div>
    </details>
  `;
}
