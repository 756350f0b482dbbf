/** The panel "Which cells next?": asks for suggestions, says why, and takes what a person decides. */
import { html } from '../html.js';
import { counted } from '../words.js';

/** @typedef {import('../stage.js').Stage} Stage */

/**
 * @param {{stage: Stage, queue: import('../suggestions.js').Queue, onAsk: () => void, onNext: () => void, onEnd: () => void}} properties
 */
export function NextPanel({ stage, queue, onAsk, onNext, onEnd }) {
  const { suggestion } = stage;
  const back = (/** @type {() => void} */ act) => () => {
    act();
    stage.canvas.focus();
  };
  const isCell = suggestion?.kind === 'cell';
  return html`
    <section class="panel-plain" aria-label="Which cells next?" id="next-panel">
      <h2>Which cells next?</h2>
      ${!queue.all.length && html`
        <p class="note">The cells that teach most, drawn one after the other.</p>
      `}
      ${queue.all.length > 0 && html`
        <p class="note" id="suggestion-place">${queue.current
          ? `${isCell || queue.current.kind === 'cell' ? 'Cell' : 'Background'}, ${queue.index + 1} of ${queue.all.length}, ${queue.open} open`
          : `${counted(queue.all.length, 'suggestion')}, ${queue.open} open`}</p>
      `}
      ${suggestion && html`
        <p id="suggestion-reason" aria-live="polite">${suggestion.reason}</p>
        <div class="buttons" role="group" aria-label="What is drawn is">
          <button class="primary" id="suggestion-accept" title="A or Enter" onClick=${back(() => stage.acceptSuggestion())}>${isCell ? 'Accept' : 'Is background'}</button>
          ${isCell && html`<button id="suggestion-redraw" title="R" onClick=${back(() => stage.redrawSuggestion())}>Redraw</button>`}
          <button id="suggestion-reject" title="N" onClick=${back(() => stage.rejectSuggestion())}>${isCell ? 'Not a cell' : 'Is a cell'}</button>
        </div>
        ${isCell && html`
          <label class="check"><input id="suggestion-ring" type="checkbox" checked=${stage.ring} onChange=${(/** @type {any} */ e) => stage.setRing(e.target.checked)} /><i class="swatch background"></i>Accept the background around it, too</label>
        `}
      `}
      <div class="buttons">
        ${queue.open > 0
          ? html`<button id="suggestion-next" title="Tab" onClick=${back(onNext)}>Next suggestion</button><button id="suggestion-end" onClick=${back(onEnd)}>End</button>`
          : html`<button id="suggest" disabled=${queue.busy} onClick=${back(onAsk)}>${queue.busy ? 'Looking at the images ...' : queue.all.length ? 'Suggest more' : 'Suggest cells'}</button>`}
      </div>
      ${queue.open > 0 && html`<p class="note"><kbd>Tab</kbd> next · <kbd>A</kbd> accept · <kbd>R</kbd> redraw · <kbd>N</kbd> not a cell</p>`}
    </section>
  `;
}
