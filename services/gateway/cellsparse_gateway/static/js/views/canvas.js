/** One image: mark, train, see, correct. */
import * as api from '../api.js';
import { AcceptAbove } from '../confidence.js';
import { Help } from '../help.js';
import { html, useEffect, useReducer, useRef, useState } from '../html.js';
import { follow } from '../runs.js';
import { Stage } from '../stage.js';
import { queueOf } from '../suggestions.js';
import { Tour, tourGone } from '../tour.js';
import { request, start, TrainForm, TrainProgress } from '../train.js';
import { whileWaking } from '../waking.js';
import { counted, ended } from '../words.js';
import { FIRST_CELL } from '../viewer/outlines.js';
import { Header } from './header.js';
import { NextPanel } from './next.js';
import { FilePanel, ShowPanel, ToolRail } from './panels.js';

/** Shortest time between two predictions of a training's checkpoints, milliseconds. */
const PEEK_EVERY = 10000;

/** @param {{project: string, image: string, say: (sentence: string) => void, fail: (error: unknown) => void}} properties */
export function CanvasView({ project: projectId, image: imageId, say, fail }) {
  const canvas = useRef(null);
  const [project, setProject] = useState(/** @type {any} */ (null));
  const [runs, setRuns] = useState(/** @type {any[]} */ ([]));
  const [stage, setStage] = useState(/** @type {Stage | null} */ (null));
  const [run, setRun] = useState(/** @type {any} */ (null));
  const [progress, setProgress] = useState(/** @type {import('../runs.js').Progress | null} */ (null));
  const [help, setHelp] = useState(false);
  const [predicting, setPredicting] = useState(false);
  const [waking, setWaking] = useState('');
  const [starting, setStarting] = useState(false);
  const [, tick] = useReducer((/** @type {number} */ n) => n + 1, 0);
  const done = useRef({ background: false, predictedAt: -1 });
  const queue = queueOf(projectId);
  const peek = useRef({ time: 0, step: 0, busy: false });

  const loadRuns = async () => {
    const all = await api.projectRuns(projectId);
    setRuns(all);
    return all;
  };

  useEffect(() => {
    /** @type {Stage | null} */
    let made = null;
    let gone = false;
    let waiting = false;
    const changed = () => {
      if (waiting) return;
      waiting = true;
      requestAnimationFrame(() => {
        waiting = false;
        if (!gone) tick();
      });
    };
    const open = async () => {
      const [image, now] = await Promise.all([api.image(imageId), api.project(projectId)]);
      if (gone) return;
      setProject(now);
      document.title = `${image.name} · Cellsparse`;
      made = new Stage(/** @type {any} */ (canvas.current), image, {
        changed, say, fail, help: () => setHelp(true), next: () => nextImage(fail, projectId, imageId, say),
        train: () => document.getElementById('train')?.click(),
        suggest: () => suggest(made),
        nextSuggestion: () => queue.open > 0 && nextSuggestion(made),
      });
      setStage(made);
      /** @type {any} */ (canvas.current).focus();
      const cells = tourGone() ? { cells: [] } : api.cells(imageId);
      const [marked, layers, all] = await Promise.all([cells, api.layers(imageId), loadRuns()]);
      if (gone) return;
      const area = (marked.cells ?? []).reduce((/** @type {number} */ sum, /** @type {any} */ cell) => sum + cell.area, 0);
      done.current.background ||= image.labelled_pixels > area;
      if (layers[0]) {
        made.setLayer(layers[0]);
        done.current.predictedAt = image.cells;
      }
      if (all[0] && !ended(all[0].state)) setRun(all[0]);
      if (queue.current?.image === imageId && queue.current.decision === 'open') made.propose(queue.current);
    };
    open().catch(fail);
    return () => {
      gone = true;
      made?.close();
    };
  }, [imageId]);

  useEffect(() => (run ? follow(run, setProgress) : undefined), [run?.id]);

  /** @param {string} model id of a model or of a run that trains */
  const predict = async (model) => {
    const layer = await whileWaking(api.predictLayer(imageId, model), setWaking);
    stage?.setLayer(layer);
    if (done.current.predictedAt < 0) done.current.predictedAt = stage?.image.cells ?? 0;
    return layer;
  };

  // While it trains, the newest checkpoint's outlines; a server that cannot give them is no error.
  useEffect(() => {
    if (!progress || !stage || progress.run.state !== 'RUN_STATE_RUNNING') return;
    const now = peek.current;
    if (now.busy || progress.checkpoint <= now.step || Date.now() - now.time < PEEK_EVERY) return;
    peek.current = { time: Date.now(), step: progress.checkpoint, busy: true };
    predict(progress.run.id)
      .catch(() => {})
      .finally(() => {
        peek.current.busy = false;
      });
  }, [progress]);

  const over = progress?.ended ? `${progress.run.id} ${progress.run.state}` : '';
  useEffect(() => {
    if (!over || !progress || !stage) return;
    loadRuns().catch(fail);
    if (progress.run.state === 'RUN_STATE_SUCCEEDED') predictWith(progress.run.id);
  }, [over]);

  /** @param {string} model */
  const predictWith = async (model) => {
    setPredicting(true);
    try {
      const layer = await predict(model);
      // Step 0 are the weights that the training began with.
      const better = layer.step > 0 || layer.run_id ? '' : 'The training found nothing better than the model before. ';
      say(`${better}The model found ${counted(layer.cells, 'cell')}. Correct a few and train on.`);
    } catch (error) {
      fail(error);
    } finally {
      setPredicting(false);
    }
  };

  /** @param {import('../train.js').Choice} choice */
  const train = async (choice) => {
    if (!stage) return;
    setStarting(true);
    try {
      await stage.edits.settled();
      const made = await start(projectId, request(choice, runs, await api.images(projectId)));
      peek.current = { time: Date.now(), step: 0, busy: false };
      setProgress(null);
      setRun(made);
      say('The training is queued.');
      await loadRuns();
    } catch (error) {
      fail(error);
    } finally {
      setStarting(false);
      stage.canvas.focus();
    }
  };

  /**
   * Shows the next suggestion, in its image.
   * @param {Stage | null} shown
   */
  const nextSuggestion = (shown) => {
    shown?.propose(null);
    const found = queue.next();
    if (!found) say('All suggestions are done. Train, or ask for more.');
    else if (found.image === imageId) shown?.propose(found);
    else location.hash = `#/p/${projectId}/i/${found.image}`;
    tick();
    return true;
  };

  /** @param {Stage | null} shown */
  const suggest = async (shown) => {
    if (queue.busy || !shown) return;
    try {
      const asked = shown.edits.settled().then(() => queue.ask());
      queue.busy = true;
      tick();
      say('Looking at the images ...');
      const count = await asked;
      if (count && shown.closed) say(`${counted(count, 'suggestion')}: Tab shows the first.`);
      else if (count) nextSuggestion(shown);
      else say('There is nothing to suggest: no candidate is left in the images that were looked at.');
    } catch (error) {
      fail(error);
    } finally {
      queue.busy = false;
      tick();
    }
  };

  const endSuggestions = () => {
    queue.clear();
    stage?.propose(null);
    tick();
  };

  const model = runs.find((one) => one.state === 'RUN_STATE_SUCCEEDED');
  const training = Boolean(run) && progress?.run.id === run.id ? !ended(progress?.run.state) : Boolean(run);
  const cells = stage?.image.cells ?? 0;
  const background = done.current.background || stage?.edits.pending.some(({ kind }) => kind === 'background' || kind === 'reject') || stage?.painted === true;
  const predicted = Boolean(stage?.layer);

  return html`
    <${Header} project=${project} view="project" image=${stage?.image} />
    <main class="canvas-page">
      ${stage && html`<${ToolRail} stage=${stage} onHelp=${() => setHelp(true)} />`}
      <div class="middle">
        ${stage && html`<${Tour} done=${{ cells, background, training, predicted, corrected: predicted && cells > done.current.predictedAt }} />`}
        <canvas ref=${canvas} id="canvas" tabindex="0" role="application" aria-label="Image. Arrow keys move the cursor, Enter clicks, question mark shows all keys."></canvas>
        ${stage && html`<${StatusBar} stage=${stage} />`}
      </div>
      ${stage && html`
        <aside class="side" aria-label="Train and correct">
          <section class="panel-plain">
            <${TrainForm} busy=${training || starting} cells=${Math.max(cells, project?.cells ?? 0)} runs=${runs} image=${stage.image} onTrain=${train} />
            ${run && progress && html`<${TrainProgress} progress=${progress} onCancel=${() => api.cancelRun(run.id).then(() => say('The training stops.')).catch(fail)} />`}
            ${predicting && html`<p class="note" id="predicting">Looking at this image with the new model ...</p>`}
            ${waking && html`<p class="note" id="waking" role="status">${waking}</p>`}
          </section>
          ${(predicted || model) && html`
            <section class="panel-plain" data-tour="correct">
              <h2>Correct</h2>
              ${predicted && html`
                <p class="note" id="found"><i class="swatch predicted"></i>${counted(stage.layer.cells, 'cell')} found${stage.layer.step ? ` at step ${stage.layer.step}` : ''}. Click one to accept it.</p>
                <div class="buttons">
                  <button id="accept-all" onClick=${() => stage.acceptVisible()} title="Shift A">Accept all in sight</button>
                </div>
                <${AcceptAbove} stage=${stage} />
                <p class="note"><kbd>X</kbd> on a wrong one: not a cell. <kbd>Tab</kbd>: next.</p>
              `}
              ${model && stage.layer?.model_id !== model.id && html`
                <div class="buttons"><button id="predict" disabled=${predicting} onClick=${() => predictWith(model.id)}>Outline this image with the newest model</button></div>
              `}
            </section>
          `}
          <${NextPanel} stage=${stage} queue=${queue} onAsk=${() => suggest(stage)} onNext=${() => nextSuggestion(stage)} onEnd=${endSuggestions} />
          <${ShowPanel} stage=${stage} />
          <${FilePanel} stage=${stage} />
        </aside>
      `}
    </main>
    ${help && html`<${Help} onClose=${() => { setHelp(false); stage?.canvas.focus(); }} />`}
  `;
}

/** @param {{stage: Stage}} properties */
function StatusBar({ stage }) {
  const { image, pointer, edits } = stage;
  const inside = pointer && pointer[0] >= 0 && pointer[1] >= 0 && pointer[0] < image.width && pointer[1] < image.height;
  const label = inside ? stage.annotation.at(pointer[0], pointer[1], stage.plane) : 0;
  const under = label >= FIRST_CELL ? 'cell' : label ? 'background' : 'not labelled';
  const state = edits.offline ? 'Not saved yet: the server does not answer' : edits.pending.length ? 'Saving ...' : 'All saved';
  return html`
    <div class="status">
      <span id="cells">${counted(image.cells, 'cell')}</span>
      <span class=${edits.offline ? 'warn' : ''} id="saved">${state}</span>
      <span class="grow"></span>
      ${inside && html`<span>${Math.floor(pointer[0])}, ${Math.floor(pointer[1])} · ${under}</span>`}
      <span>${Math.round(stage.viewer.view.scale * 100)} %</span>
    </div>
  `;
}

/**
 * @param {(error: unknown) => void} fail
 * @param {string} project
 * @param {string} image
 * @param {(sentence: string) => void} say
 */
async function nextImage(fail, project, image, say) {
  try {
    const all = await api.images(project);
    const index = all.findIndex(({ id }) => id === image);
    if (all.length < 2) say('All predicted cells of this image are done, and there is no other image.');
    else location.hash = `#/p/${project}/i/${all[(index + 1) % all.length].id}`;
  } catch (error) {
    fail(error);
  }
}
