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

const { parseSettings, request } = await load('train.js');

test('settings are read as people write them', () => {
  assert.deepEqual(parseSettings('steps=200 crop_size=128; unet.base_channels=8', 'unet'), {
    steps: 200, crop_size: 128, unet: { base_channels: 8 },
  });
  assert.deepEqual(parseSettings('stardist.dist_start=true learning_rate=1e-4', 'stardist'), {
    stardist: { dist_start: true }, learning_rate: 1e-4,
  });
  assert.throws(() => parseSettings('steps', 'unet'), /name=value/);
  assert.throws(() => parseSettings('unet.grid=2', 'stardist'), /stardist\.name=value/);
});

test('a training goes on from the last model of its method, unless it is to start afresh', () => {
  const runs = [
    { id: 'run-3', backend: 'unet', state: 'RUN_STATE_FAILED' },
    { id: 'run-2', backend: 'stardist', state: 'RUN_STATE_SUCCEEDED' },
    { id: 'run-1', backend: 'unet', state: 'RUN_STATE_SUCCEEDED' },
  ];
  const choice = { backend: 'unet', preset: 'fast', expert: '', from: '' };
  assert.equal(request(choice, runs, []).initial_model, 'run-1');
  assert.equal(request({ ...choice, from: 'fresh' }, runs, []).initial_model, '');
  assert.equal(request({ ...choice, from: 'md-other' }, runs, []).initial_model, 'md-other');
  assert.equal(request({ ...choice, backend: 'cellpose' }, runs, []).initial_model, '');
});

test('with four annotated images one is kept aside to score on', () => {
  const choice = { backend: 'unet', preset: 'fast', expert: '', from: 'fresh' };
  const images = ['a', 'b', 'c', 'd', 'e'].map((id) => ({ id, cells: id === 'e' ? 0 : 3 }));
  assert.deepEqual(request(choice, [], images).val_image_ids, ['d']);
  assert.deepEqual(request(choice, [], images.slice(1)).val_image_ids, []);
});
