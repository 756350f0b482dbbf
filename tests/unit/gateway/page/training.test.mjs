import assert from 'node:assert/strict';
import test from 'node:test';
import { load } from './support.mjs';

// What the page keeps lies in the browser's storage.
globalThis.localStorage = { getItem: () => null, setItem: () => {} };
globalThis.location = { href: 'http://localhost/' };
globalThis.document = {};

const { unknownProgress, withEvent } = await load('runs.js');
const words = await load('words.js');

test('events become curves; steps that another attempt repeats replace the old ones', () => {
  let progress = unknownProgress({ id: 'run-1', state: 'RUN_STATE_QUEUED' });
  const event = (step, loss) => ({ state: 'RUN_STATE_RUNNING', training: { step, total_steps: 40, losses: { loss }, validation: {} } });
  for (const [step, loss] of [[10, 3], [20, 2], [30, 1], [20, 2.5]]) progress = withEvent(progress, event(step, loss));
  assert.deepEqual(progress.loss, { steps: [10, 20], values: [3, 2.5] });
  assert.deepEqual([progress.step, progress.total, progress.run.state], [20, 40, 'RUN_STATE_RUNNING']);
});

test('checkpoints only grow', () => {
  let progress = unknownProgress({ id: 'run-1' });
  for (const step of [10, 30, 20]) progress = withEvent(progress, { state: 'RUN_STATE_RUNNING', training: { checkpoint_step: step } });
  assert.equal(progress.checkpoint, 30);
});

test('states and reasons in words', () => {
  assert.equal(words.stateWord('RUN_STATE_RETRYING'), 'Trying again');
  assert.equal(words.why({ reason: 'FAILURE_REASON_LOST', message: '' }), 'The trainer went away.');
  assert.equal(words.why({ reason: 'FAILURE_REASON_LOST', message: 'It crashed.' }), 'It crashed.');
  assert.equal(words.counted(1, 'cell'), '1 cell');
  assert.equal(words.duration(150), '3 min');
});
