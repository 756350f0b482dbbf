/** Training: the one button, what lies behind "More", and how far it is. */
import * as api from './api.js';
import { ChannelChooser, validChannels } from './channels.js';
import { Chart } from './charts.js';
import { html, useEffect, useState } from './html.js';
import { BACKENDS, backendWord, counted, duration, ended, stateWord, why } from './words.js';

const CHOICE = 'cellsparse.training';

/**
 * @typedef {{backend: string, preset: string, expert: string, from: string, channels: string[]}} Choice from: id of the model to
 *   start from, FRESH, or empty for the project's last one; channels: those that the network gets, in its order; none: as the
 *   method does by itself
 */

const FRESH = 'fresh'; // no model: ids of models have a dash
const SERVICES = ['orchestrator', 'sparsifier'];

/** @returns {Choice} what was chosen last in this browser */
export function lastChoice() {
  const first = { backend: 'stardist', preset: 'fast', expert: '', from: '', channels: [] };
  try {
    return { ...first, ...JSON.parse(localStorage.getItem(CHOICE) ?? '{}'), from: '' };
  } catch {
    return first;
  }
}

/**
 * Settings as people write them: "steps=200 channels=0,1"; lists with commas.
 * @param {string} text
 * @param {string} backend
 * @returns {Record<string, unknown>} TrainingSettings' fields; a backend's own as "unet.base_channels=8"
 */
export function parseSettings(text, backend) {
  /** @type {Record<string, any>} */
  const settings = {};
  for (const word of text.split(/[\s;]+/).filter(Boolean)) {
    const [name, value, ...more] = word.split('=');
    if (!name || !value || more.length) throw new Error(`"${word}" is no setting: write name=value, such as steps=200.`);
    const parts = name.split('.');
    if (parts.length > 2 || (parts.length === 2 && parts[0] !== backend)) {
      throw new Error(`"${name}" is no setting of ${backendWord(backend)}: write ${backend}.name=value.`);
    }
    const one = (/** @type {string} */ item) => (/^(true|false)$/.test(item) ? item === 'true' : /^-?[\d.]+(e-?\d+)?$/i.test(item) ? Number(item) : item);
    const read = value.includes(',') ? value.split(',').map(one) : one(value);
    if (parts.length === 2) settings[backend] = { ...settings[backend], [parts[1]]: read };
    else settings[name] = name === 'channels' ? value.split(',') : read; // numbers and names are texts there
  }
  return settings;
}

/** From so many annotated images on, one is kept aside to score on. */
const ENOUGH_TO_SCORE = 4;

/**
 * What a training is asked with.
 * @param {Choice} choice
 * @param {any[]} runs the project's, newest first
 * @param {any[]} images the project's
 */
export function request({ backend, preset, expert, from, channels }, runs, images) {
  const annotated = images.filter(({ cells }) => cells > 0);
  return {
    backend,
    preset,
    settings: { ...(channels?.length ? { channels } : {}), ...parseSettings(expert, backend) },
    initial_model: from === FRESH ? '' : from || (lastModel(runs, backend)?.id ?? ''),
    val_image_ids: annotated.length >= ENOUGH_TO_SCORE ? [annotated[annotated.length - 1].id] : [],
    request_id: `page-${Date.now().toString(36)}-${Math.random().toString(36).slice(2, 10)}`,
  };
}

/**
 * @param {any[]} runs the project's, newest first
 * @param {string} backend
 * @returns {any} the run that made the project's last model; undefined if there is none
 */
const lastModel = (runs, backend) => runs.find((run) => run.backend === backend && run.state === 'RUN_STATE_SUCCEEDED');

/**
 * Starts a training; a call that got no answer is repeated with the same request, which makes one run only.
 * @param {string} project
 * @param {any} body
 */
export async function start(project, body) {
  for (let turn = 0; ; turn += 1) {
    try {
      return await api.train(project, body);
    } catch (error) {
      if (turn >= 3 || !(error instanceof api.ApiError) || !error.passing) throw error;
      await api.pause(500 * 2 ** turn);
    }
  }
}

/**
 * What the installation can train with: [name, why not] of each method; those that this page knows come first.
 * @returns {[string, string][]}
 */
function useMethods() {
  const known = Object.keys(BACKENDS);
  const [methods, setMethods] = useState(/** @type {[string, string][]} */ (known.slice(0, 3).map((name) => [name, ''])));
  useEffect(() => {
    api.status().then(
      ({ services = [], absent = [] }) => {
        const there = services.filter((/** @type {any} */ { name }) => !SERVICES.includes(name)).map((/** @type {any} */ { name }) => [name, '']);
        const all = [...there, ...absent.map((/** @type {any} */ { name, message }) => [name, message])];
        const rank = (/** @type {string} */ name) => (known.includes(name) ? known.indexOf(name) : known.length);
        if (all.length) setMethods(all.sort(([one], [other]) => rank(one) - rank(other) || one.localeCompare(other)));
      },
      () => {}, // the three that every installation has
    );
  }, []);
  return methods;
}

/**
 * @param {{chosen: string, backend: string, last: any, onChange: (from: string) => void}} properties last: the run that made
 *   the project's last model
 */
function StartFrom({ chosen, backend, last, onChange }) {
  const [models, setModels] = useState(/** @type {any[]} */ ([]));
  useEffect(() => {
    let gone = false;
    setModels([]);
    api.newestModels(backend).then((found) => gone || setModels(found), () => {});
    return () => {
      gone = true;
    };
  }, [backend, last?.id]);
  const others = models.filter(({ id }) => id !== last?.id);
  if (!last && !others.length) return null;
  const first = last ? [['', 'The last model'], [FRESH, 'Afresh, without a model']] : [['', 'Afresh, without a model']];
  return html`
    <label>Start from
      <select id="start-from" value=${chosen} onChange=${(/** @type {any} */ e) => onChange(e.target.value)}>
        ${[...first, ...others.map(({ id, name }) => [id, name])].map(([id, title]) => html`<option value=${id} selected=${id === chosen}>${title}</option>`)}
      </select>
    </label>
  `;
}

/**
 * @param {{busy: boolean, cells: number, runs: any[], image: any, onTrain: (choice: Choice) => void}} properties
 */
export function TrainForm({ busy, cells, runs, image, onTrain }) {
  const [choice, setChoice] = useState(lastChoice);
  const set = (/** @type {Partial<Choice>} */ part) => {
    const next = { ...choice, ...part };
    setChoice(next);
    localStorage.setItem(CHOICE, JSON.stringify(next));
  };
  const methods = useMethods();
  const backend = methods.some(([name]) => name === choice.backend) ? choice.backend : methods[0][0];
  const last = lastModel(runs, backend);
  useEffect(() => {
    if (choice.from) set({ from: '' }); // the training that was asked for is done: the next one goes on from it
  }, [last?.id]);
  const absent = methods.find(([name]) => name === backend)?.[1];
  const channels = image.channels > 1 ? validChannels(choice.channels, image, backend) : [];
  return html`
    <div class="train-form" data-tour="train">
      <button class="primary wide" id="train" disabled=${busy || cells < 1} onClick=${() => onTrain({ ...choice, backend, channels })}>
        ${(choice.from || last) && choice.from !== FRESH ? 'Train on' : 'Train'}
      </button>
      ${cells < 1 && html`<p class="note">Mark a few cells and a bit of background first.</p>`}
      <details class="more">
        <summary>More</summary>
        <label>Method
          <select id="method" value=${backend} onChange=${(/** @type {any} */ e) => set({ backend: e.target.value, from: '' })}>
            ${methods.map(([name, reason]) => html`<option value=${name} title=${reason} selected=${name === backend}>${backendWord(name)}</option>`)}
          </select>
        </label>
        ${absent && html`<p class="note warn">${absent}</p>`}
        <${StartFrom} chosen=${choice.from} backend=${backend} last=${last} onChange=${(/** @type {string} */ from) => set({ from })} />
        <label>Preset
          <select value=${choice.preset} onChange=${(/** @type {any} */ e) => set({ preset: e.target.value })}>
            <option value="fast" selected=${choice.preset === 'fast'}>Fast</option>
            <option value="paper" selected=${choice.preset === 'paper'}>Paper (long)</option>
          </select>
        </label>
        ${image.channels > 1 && html`<${ChannelChooser} image=${image} backend=${backend} chosen=${channels} onChange=${(/** @type {string[]} */ chosen) => set({ channels: chosen })} />`}
        <label>Settings
          <input type="text" value=${choice.expert} placeholder="steps=300 crop_size=128" spellcheck=${false}
            onChange=${(/** @type {any} */ e) => set({ expert: e.target.value.trim() })} />
        </label>
      </details>
    </div>
  `;
}

/**
 * @param {{progress: import('./runs.js').Progress, onCancel: () => void}} properties
 */
export function TrainProgress({ progress, onCancel }) {
  const { run, step, total, eta } = progress;
  const share = total ? step / total : 0;
  const over = ended(run.state);
  const reason = why(run);
  const position = run.queue_position;
  return html`
    <section class="progress" aria-label="Training">
      <p class="state">
        <span class=${`dot ${run.state}`}></span>
        <b id="run-state">${stateWord(run.state)}</b>
        <span class="quiet">${backendWord(run.backend)}</span>
        ${!over && html`<button class="link" onClick=${onCancel}>Stop</button>`}
      </p>
      ${run.state === 'RUN_STATE_QUEUED' && position > 0 && html`<p class="note">${position === 1 ? 'Next in the queue.' : `Number ${position} in the queue.`}</p>`}
      ${!progress.connected && html`<p class="note warn">The server does not answer. The training goes on when it is back.</p>`}
      ${reason && run.state !== 'RUN_STATE_SUCCEEDED' && html`<p class=${run.state === 'RUN_STATE_FAILED' ? 'note warn' : 'note'}>${reason}</p>`}
      ${!over && total > 0 && html`
        <progress value=${share} max="1" aria-label="Steps done"></progress>
        <p class="note">${counted(step, 'step')} of ${total.toLocaleString('en')}${eta > 0 ? ` · about ${duration(eta)} left` : ''}</p>
      `}
      ${(progress.loss.steps.length > 0 || !over) && html`
        <${Chart} curve=${progress.loss} label="Loss" colour="#56b4e9" />
        ${progress.score.steps.length > 0 && html`<${Chart} curve=${progress.score} label="Score on marked cells" colour="#009e73" range=${[0, 1]} />`}
      `}
    </section>
  `;
}
