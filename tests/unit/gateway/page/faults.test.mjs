import assert from 'node:assert/strict';
import test from 'node:test';
import { load } from './support.mjs';

globalThis.document = {};

const { listed, sentencesOf, whyLeftOut } = await load('faults.js');
const { ApiError } = await load('api.js');
const { asksForPart } = await load('parts.js');

test('files that would be sent in vain are left out with the reason', () => {
  assert.match(whyLeftOut('cells', true), /is a folder/);
  assert.match(whyLeftOut('.DS_Store', false), /hidden/);
  assert.match(whyLeftOut('cells.CZI', false), /converts it on your computer/);
  for (const name of ['a.tif', 'a.ome.zarr.zip', 'a.czi.tif', 'no ending']) assert.equal(whyLeftOut(name, false), '');
});

test('each fault of an upload is a sentence of its own', () => {
  const two = [{ field: 'a', detail: 'One.' }, { field: 'b', detail: 'Two.' }];
  assert.deepEqual(sentencesOf(new ApiError(422, 'Both.', two)), ['One.', 'Two.']);
  assert.deepEqual(sentencesOf(new ApiError(422, 'Both.', two.slice(1))), ['Both.']);
  assert.deepEqual(sentencesOf('broken'), ['broken']);
});

test('20 files are listed, others are counted', () => {
  const entries = Array.from({ length: 23 }, (_, index) => ({ name: String(index), sentences: ['Bad.'] }));
  assert.equal(listed(entries).shown.length, 20);
  assert.equal(listed(entries).more, 3);
  assert.deepEqual(listed([]), { shown: [], more: 0 });
});

test('a refusal that a choice answers is known', () => {
  assert.ok(asksForPart('It is a time series; choose a time point with time (--time).'));
  assert.ok(asksForPart('Give its axes: CYX (--axes CYX) for channels.'));
  assert.ok(!asksForPart('The image is not a TIFF, PNG or JPEG file.'));
});
