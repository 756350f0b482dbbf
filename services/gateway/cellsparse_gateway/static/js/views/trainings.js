/** All trainings of a project, newest first; one of them with its curves. */
import * as api from '../api.js';
import { html, useEffect, useState } from '../html.js';
import { follow } from '../runs.js';
import { TrainProgress } from '../train.js';
import { backendWord, duration, ended, stateWord, when } from '../words.js';
import { Header } from './header.js';

/** @param {{project: string, say: (sentence: string) => void, fail: (error: unknown) => void}} properties */
export function TrainingsView({ project: id, say, fail }) {
  const [project, setProject] = useState(/** @type {any} */ (null));
  const [runs, setRuns] = useState(/** @type {any[] | null} */ (null));
  const [chosen, setChosen] = useState('');
  const [progress, setProgress] = useState(/** @type {import('../runs.js').Progress | null} */ (null));
  useEffect(() => {
    const load = () => api.projectRuns(id).then(setRuns).catch(fail);
    api.project(id).then(setProject).catch(fail);
    load();
    const timer = setInterval(load, 5000);
    return () => clearInterval(timer);
  }, [id]);
  const run = runs?.find((one) => one.id === chosen) ?? runs?.[0];
  useEffect(() => {
    setProgress(null);
    return run ? follow(run, setProgress) : undefined;
  }, [run?.id]);
  const took = (/** @type {any} */ one) => {
    const seconds = (new Date(one.ended_at).getTime() - new Date(one.started_at).getTime()) / 1000;
    return one.started_at && one.ended_at ? duration(seconds) : '';
  };
  const cancel = async () => {
    if (!run) return;
    await api.cancelRun(run.id).then(() => say('The training stops.')).catch(fail);
  };
  return html`
    <${Header} project=${project} view="trainings" />
    <main class="page two">
      <section aria-label="Trainings">
        <h1>Trainings</h1>
        ${runs?.length === 0 && html`<p class="note">Nothing was trained yet. Open an image, mark a few cells and press Train.</p>`}
        <ul class="rows">
          ${(runs ?? []).map((one) => html`
            <li key=${one.id}>
              <button class=${`row${one.id === run?.id ? ' here' : ''}`} aria-pressed=${one.id === run?.id} onClick=${() => setChosen(one.id)}>
                <span class=${`dot ${one.state}`}></span>
                <b>${stateWord(one.state)}</b>
                <span>${backendWord(one.backend)}</span>
                <span class="quiet">${when(one.created_at)}${took(one) ? ` · took ${took(one)}` : ''}</span>
                <span class="quiet grow right">${!ended(one.state) && one.queue_position > 0 ? `number ${one.queue_position} in the queue` : ''}</span>
              </button>
            </li>
          `)}
        </ul>
      </section>
      <aside class="side-card">${progress && html`<${TrainProgress} progress=${progress} onCancel=${cancel} />`}</aside>
    </main>
  `;
}
