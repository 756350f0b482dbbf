import assert from 'node:assert/strict';
import { test } from 'node:test';
import { whileWaking, wakingSentence } from '../../../../services/gateway/cellsparse_gateway/static/js/waking.js';

const STARTING = { name: 'cellpose', asleep: true, waking: true, healthy: true, message: 'asleep, and one is starting (about 40 s); calls that wait: 1' };

test('only trainers that are being started are told of', () => {
  const quiet = { name: 'unet', asleep: true, healthy: true, message: 'asleep: the first prediction starts one' };
  assert.equal(wakingSentence({ services: [quiet, { name: 'stardist', healthy: true }] }), '');
  assert.equal(wakingSentence({ services: [quiet, STARTING] }), 'The cellpose trainers were asleep, and one is starting (about 40 s); calls that wait: 1.');
  assert.equal(wakingSentence({}), '');
});

test('a call that waits tells so, and in the end nothing', async () => {
  globalThis.fetch = async () => new Response(JSON.stringify({ services: [STARTING] }));
  const told = [];
  let answer = () => {};
  const call = new Promise((done) => {
    answer = done;
  });
  const tell = (sentence) => {
    told.push(sentence);
    answer('a layer');
  };
  assert.equal(await whileWaking(call, tell, 1), 'a layer');
  assert.match(told[0], /were asleep, and one is starting/);
  assert.equal(told.at(-1), '');
});

test('a call that fails fails', async () => {
  await assert.rejects(whileWaking(Promise.reject(new Error('no')), () => {}, 1), /no/);
});
