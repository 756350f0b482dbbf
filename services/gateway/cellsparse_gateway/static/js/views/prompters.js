/** What proposes outlines for a click, and Segment Anything models that people bring. */
import * as api from '../api.js';
import { query } from '../api.js';
import { html, useEffect, useRef, useState } from '../html.js';
import { missing, nameOf, pack } from '../prompter_files.js';
import { upload } from '../upload.js';
import { size, when } from '../words.js';
import { Header, sure } from './header.js';

/** @typedef {import('../prompter_files.js').Chosen} Chosen */

/** @type {Chosen} */
const NOTHING = { encoder: null, decoder: null, zip: null };

/** @param {{say: (sentence: string) => void, fail: (error: unknown) => void}} properties */
export function PromptersView({ say, fail }) {
  const [listed, setListed] = useState(/** @type {any[] | null} */ (null));
  const load = async () => {
    try {
      const [status, stored] = await Promise.all([api.status(), api.prompters()]);
      const files = new Map(stored.map((each) => [each.name, each]));
      setListed((status.prompters ?? []).map((/** @type {any} */ each) => ({ ...each, stored: files.get(each.name) })));
    } catch (error) {
      fail(error);
    }
  };
  useEffect(() => {
    document.title = 'Models for clicks · Cellsparse';
    load();
  }, []);
  const remove = async (/** @type {string} */ name) => {
    if (!sure(`Remove "${name}" with its weights, for everyone?`)) return;
    try {
      await api.deletePrompter(name);
      say(`"${name}" is removed.`);
    } catch (error) {
      fail(error);
    }
    await load();
  };
  return html`
    <${Header} />
    <main class="page">
      <h1>Models for clicks</h1>
      <p class="lead">A click proposes a cell's outline. These are asked in this order; the first that finds a cell answers.</p>
      ${listed === null && html`<p class="note">Loading ...</p>`}
      <ol class="rows" aria-label="Models for clicks">
        ${(listed ?? []).map(({ name, title, licence, stored }) => html`
          <li class="model" key=${name}>
            <div>
              <b>${title}</b> <span class="quiet">${stored ? detail(stored) : 'always there'}</span>
              ${licence && html`<p class="note">Licence: ${licence}</p>`}
            </div>
            ${stored && html`<div class="model-actions"><button aria-label=${`Remove ${name}`} onClick=${() => remove(name)}>Remove</button></div>`}
          </li>
        `)}
      </ol>
      <${AddForm} say=${say} onChanged=${load} />
    </main>
  `;
}

/** @param {any} stored */
const detail = ({ encoder, decoder, created_at: created }) => `${size(encoder.size + decoder.size)} · ${when(created)}`;

/** @param {{say: (sentence: string) => void, onChanged: () => Promise<void>}} properties */
function AddForm({ say, onChanged }) {
  const [chosen, setChosen] = useState(NOTHING);
  const [name, setName] = useState('');
  const [licence, setLicence] = useState('');
  const [doing, setDoing] = useState(/** @type {{words: string, share: number | null} | null} */ (null));
  const [problem, setProblem] = useState('');
  const stop = useRef(/** @type {AbortController | null} */ (null));
  const act = useRef(/** @type {HTMLElement | null} */ (null));
  useEffect(() => () => stop.current?.abort(), []);
  useEffect(() => {
    // What had the focus is disabled or gone: the keyboard goes on at the button. A browser takes the focus from a
    // disabled field only when it draws the next frame.
    const focused = /** @type {any} */ (document.activeElement);
    if (stop.current && (focused === document.body || focused?.disabled)) act.current?.focus();
  }, [doing === null]);

  const choose = (/** @type {keyof Chosen} */ part, /** @type {any} */ input) => {
    const file = input.files[0] ?? null;
    setProblem('');
    setChosen((now) => (part === 'zip' ? { ...NOTHING, zip: file } : { ...now, zip: null, [part]: file }));
    if (file) setName((now) => now || nameOf(file.name));
  };
  const add = async (/** @type {Event} */ event) => {
    event.preventDefault();
    const lacking = missing(chosen);
    setProblem(lacking);
    if (lacking) return;
    stop.current = new AbortController();
    try {
      await send(name.trim(), licence.trim(), chosen, setDoing, stop.current.signal);
      say(`"${name.trim()}" is added and works.`);
      setChosen(NOTHING);
      setName('');
      setLicence('');
    } catch (error) {
      const given = error instanceof DOMException && error.name === 'AbortError';
      setProblem(given ? 'Given up; nothing of it is kept.' : error instanceof Error ? error.message : String(error));
    }
    setDoing(null);
    await onChanged();
  };
  // Elements of their own, by key: if Cancel became Add in place, the same click would add again.
  const button = doing
    ? html`<button key="cancel" ref=${act} type="button" onClick=${() => stop.current?.abort()}>Cancel</button>`
    : html`<button key="add" ref=${act} class="primary" type="submit">Add model</button>`;
  const picker = (/** @type {keyof Chosen} */ part, /** @type {string} */ title, /** @type {string} */ accept) => html`
    <label class=${`pick${chosen[part] ? ' there' : ''}`}>
      <input type="file" accept=${accept} disabled=${doing !== null}
        onClick=${(/** @type {any} */ e) => { e.target.value = ''; }} onChange=${(/** @type {any} */ e) => choose(part, e.target)} />
      <b>${title}</b> <span class="quiet">${chosen[part] ? `${chosen[part].name}, ${size(chosen[part].size)}` : 'choose a file'}</span>
    </label>
  `;
  return html`
    <form class="add-model" aria-labelledby="add-title" onSubmit=${add}>
      <h2 id="add-title">Add a Segment Anything model</h2>
      <p class="note">Weights are yours to choose, with their licence: an encoder and a decoder in ONNX, as samexporter writes them. Nothing is ever downloaded.</p>
      <div class="picks">
        ${picker('encoder', 'Encoder (.onnx)', '.onnx')} ${picker('decoder', 'Decoder (.onnx)', '.onnx')}
        <span class="quiet">or</span>
        ${picker('zip', 'Zip of encoder.onnx and decoder.onnx', '.zip')}
      </div>
      <div class="fields">
        <label>Name <input type="text" required maxlength="63" pattern="[a-z0-9][a-z0-9\\-]*" title="Small letters, digits and dashes" placeholder="mobile-sam"
          value=${name} disabled=${doing !== null} onInput=${(/** @type {any} */ e) => setName(e.target.value)} /></label>
        <label>Licence of the weights <input type="text" required maxlength="200" placeholder="Apache-2.0"
          value=${licence} disabled=${doing !== null} onInput=${(/** @type {any} */ e) => setLicence(e.target.value)} /></label>
        ${button}
      </div>
      ${doing && html`<progress aria-label="Progress" max="1" value=${doing.share ?? undefined}></progress>`}
      <p class="note" role="status">${doing?.words ?? ''}</p>
      <p class="warn" role="alert">${problem}</p>
    </form>
  `;
}

/**
 * Reads the files, sends them, and has the server try the model.
 * @param {string} name
 * @param {string} licence
 * @param {Chosen} chosen
 * @param {(doing: {words: string, share: number | null}) => void} tell
 * @param {AbortSignal} signal
 */
async function send(name, licence, chosen, tell, signal) {
  const { body, ...sums } = await pack(chosen, (share) => {
    signal.throwIfAborted();
    tell({ words: 'Reading the files ...', share });
  });
  signal.throwIfAborted();
  const progress = (/** @type {number} */ share) =>
    tell(share < 1 ? { words: `Sending ${Math.floor(100 * share)} % of ${size(body.size)}; stay on this page ...`, share } : { words: 'The server checks the files ...', share: null });
  progress(0);
  await upload(`/prompters${query({ name, licence, ...sums })}`, body, { progress, signal });
  tell({ words: 'The server tries the model ...', share: null });
  await api.checkPrompter(name).catch((error) => {
    throw new Error(`${error.message} It is kept, in the list above.`);
  });
}
