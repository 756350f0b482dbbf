/** Follows runs: their events as they come, over outages and restarts of the server. */
import * as api from './api.js';
import { address, ApiError, pause, query } from './api.js';
import { ended } from './words.js';

/** Longest pause between two tries, milliseconds. */
const LONGEST_PAUSE = 10000;

/**
 * @typedef {{steps: number[], values: number[]}} Curve
 * @typedef {{run: any, step: number, total: number, eta: number, loss: Curve, score: Curve, checkpoint: number,
 *   connected: boolean, ended: boolean}} Progress
 */

/**
 * Adds an event to what is known of a run.
 * @param {Progress} progress
 * @param {any} event RunEvent
 * @returns {Progress}
 */
export function withEvent(progress, event) {
  const training = event.training ?? {};
  const next = { ...progress, run: { ...progress.run, state: event.state, reason: event.reason, message: event.message || training.message || '' } };
  if (training.total_steps) {
    next.step = training.step;
    next.total = training.total_steps;
    next.eta = training.eta_seconds;
  }
  if (Number.isFinite(training.losses?.loss)) next.loss = withPoint(progress.loss, training.step, training.losses.loss);
  if (Number.isFinite(training.validation?.score)) next.score = withPoint(progress.score, training.step, training.validation.score);
  if (training.checkpoint_step) next.checkpoint = Math.max(progress.checkpoint, training.checkpoint_step);
  return next;
}

/**
 * A curve with one more point. Steps that another attempt repeats replace those that were there.
 * @param {Curve} curve
 * @param {number} step
 * @param {number} value
 */
function withPoint({ steps, values }, step, value) {
  let kept = steps.length;
  while (kept && steps[kept - 1] >= step) kept -= 1;
  return { steps: [...steps.slice(0, kept), step], values: [...values.slice(0, kept), value] };
}

/**
 * @param {any} run
 * @returns {Progress}
 */
export const unknownProgress = (run) => ({
  run,
  step: run.progress?.step ?? 0,
  total: run.progress?.total_steps ?? 0,
  eta: run.progress?.eta_seconds ?? 0,
  loss: { steps: [], values: [] },
  score: { steps: [], values: [] },
  checkpoint: 0,
  connected: true,
  ended: ended(run.state),
});

/**
 * Follows a run until it has ended.
 * @param {any} run
 * @param {(progress: Progress) => void} told
 * @returns {() => void} stops following
 */
export function follow(run, told) {
  let progress = unknownProgress(run);
  let after = 0;
  let stopped = false;
  /** @type {EventSource | null} */
  let source = null;
  const say = (/** @type {Progress} */ next) => {
    progress = next;
    if (!stopped) told(progress);
  };

  const listen = () =>
    new Promise((done) => {
      source = new EventSource(address(`/runs/${run.id}/events${query({ after })}`));
      source.addEventListener('run', (message) => {
        after = Number(message.lastEventId) || after;
        say({ ...withEvent(progress, JSON.parse(message.data)), connected: true });
      });
      source.addEventListener('end', () => done('end'));
      source.onerror = () => done('lost');
    });

  const work = async () => {
    for (let failures = 0; !stopped; ) {
      const before = after;
      await listen();
      source?.close();
      if (stopped) return;
      try {
        const now = await api.run(run.id);
        const over = ended(now.state);
        say({ ...progress, run: now, connected: true, ended: over });
        if (over) return;
      } catch (error) {
        if (error instanceof ApiError && !error.passing) return;
        say({ ...progress, connected: false });
      }
      failures = after > before ? 1 : failures + 1;
      await pause(Math.min(LONGEST_PAUSE, 250 * 2 ** failures));
    }
  };
  // Where it stands in the queue is part of the run, not of its events.
  const queue = setInterval(async () => {
    if (!/QUEUED|UNSPECIFIED/.test(progress.run.state ?? '')) return;
    const now = await api.run(run.id).catch(() => null);
    if (now) say({ ...progress, run: now });
  }, 2000);
  work().finally(() => clearInterval(queue));
  return () => {
    stopped = true;
    clearInterval(queue);
    source?.close();
  };
}
