import assert from 'node:assert/strict';
import test from 'node:test';
import { load, mask } from './support.mjs';

const masks = await load('tools/mask.js');
const codec = await load('store/codec.js');
const image = { width: 100, height: 80, levels: 1 };
const area = ({ data }) => data.reduce((sum, value) => sum + value, 0);

test('a brush of radius r covers about pi r squared', () => {
  const one = masks.brushMask([[50, 40]], 10, image);
  assert.ok(Math.abs(area(one) - Math.PI * 100) < 12);
  assert.ok(masks.covers(one, 50, 40) && !masks.covers(one, 61, 40));
});

test('a fast stroke has no gaps, and the smallest brush paints every pixel it crosses', () => {
  const line = masks.brushMask([[10.5, 10.5], [60.5, 10.5]], 0.5, image);
  assert.equal(area(line), 51);
});

test('strokes end at the image\'s border', () => {
  const corner = masks.brushMask([[0, 0], [-50, -50]], 8, image);
  assert.ok(corner.x === 0 && corner.y === 0 && area(corner) > 30);
});

test('an outline holds the pixels whose centres lie inside', () => {
  const square = masks.trim(masks.polygonMask([[10, 10], [20, 10], [20, 15], [10, 15]], image));
  assert.deepEqual([square.x, square.y, square.width, square.height, area(square)], [10, 10, 10, 5, 50]);
  assert.equal(masks.trim(masks.polygonMask([[10, 10], [10.2, 10], [10.2, 10.2]], image)), null);
});

test('holes are filled, bays are not', () => {
  const ring = mask(['.###.', '.#.#.', '.###.', '.#.#.']);
  masks.fillHoles(ring.data, ring.width, ring.height);
  assert.deepEqual(ring.data, mask(['.###.', '.###.', '.###.', '.#.#.']).data);
});

test('a stroke that is too large is refused with a sentence', () => {
  assert.throws(() => masks.brushMask([[0, 0], [9999, 9999]], 5, { width: 10000, height: 10000, levels: 5 }), /zoom in/);
});

test('masks survive storage', () => {
  for (const rows of [['..##.#'], ['######'], ['......'], ['#.....']]) {
    const { data } = mask(rows);
    assert.deepEqual(codec.fromRuns(codec.runs(data), data.length), data);
  }
});

test('label numbers survive the way to the server and back', async () => {
  const numbers = Uint32Array.from({ length: 5000 }, (_, i) => (i % 7 ? 0xffffffff : i));
  assert.deepEqual(await codec.decodeLabels(await codec.encodeLabels(numbers)), numbers);
});
