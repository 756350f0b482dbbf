import assert from 'node:assert/strict';
import test from 'node:test';
import { labels, load } from './support.mjs';

const pyramid = await load('viewer/pyramid.js');
const contrast = await load('viewer/contrast.js');
const outlines = await load('viewer/outlines.js');
const image = { width: 1300, height: 700, levels: 3 };

test('levels halve, rounded up, and tiles at the edge are smaller', () => {
  assert.deepEqual(pyramid.levelSize(image, 2), { width: 325, height: 175 });
  assert.deepEqual(pyramid.tileSize(image, { level: 0, x: 2, y: 1 }), { width: 276, height: 188 });
});

test('the level has at least a pixel for each screen pixel', () => {
  assert.equal(pyramid.chooseLevel(1, 3), 0);
  assert.equal(pyramid.chooseLevel(0.5, 3), 1);
  assert.equal(pyramid.chooseLevel(0.51, 3), 0);
  assert.equal(pyramid.chooseLevel(0.01, 3), 2);
});

test('tiles in a rectangle, nearest to its middle first, none outside the image', () => {
  const all = pyramid.tilesIn(image, 0, { x: -100, y: -100, width: 5000, height: 5000 });
  assert.equal(all.length, 6);
  const [first] = pyramid.tilesIn(image, 0, { x: 500, y: 0, width: 600, height: 400 });
  assert.deepEqual(first, { level: 0, x: 1, y: 0 });
  assert.deepEqual(pyramid.tilesIn(image, 0, { x: 0, y: 0, width: 512, height: 512 }), [{ level: 0, x: 0, y: 0 }]);
});

test('zooming leaves the point under the cursor where it is', () => {
  const view = { x: 10, y: 20, scale: 2 };
  const next = pyramid.zoomAt(view, 1.5, 100, 60);
  assert.ok(Math.abs(view.x + 100 / view.scale - (next.x + 100 / next.scale)) < 1e-9);
});

test('contrast maps black, white and what lies between', () => {
  const table = contrast.brightness(65536, { low: 100, high: 300, gamma: 1 });
  assert.deepEqual([table[0], table[100], table[200], table[300], table[65535]], [0, 0, 128, 255, 255]);
});

test('channels add up in their colours', () => {
  const style = { on: true, low: 0, high: 255, gamma: 1 };
  const red = { pixels: Uint8Array.of(255, 0), style: { ...style, colour: '#ff0000' } };
  const green = { pixels: Uint8Array.of(255, 255), style: { ...style, colour: '#00ff00' } };
  assert.deepEqual([...contrast.composite([red, green], 2)], [255, 255, 0, 255, 0, 255, 0, 255]);
  assert.deepEqual([...contrast.composite([red], 2)], [255, 0, 0, 255, 0, 0, 0, 255]);
});

test('automatic contrast leaves out the tails', () => {
  const pixels = new Uint16Array(10000).fill(500);
  pixels.fill(700, 0, 4000);
  pixels[0] = 65535;
  assert.deepEqual(contrast.autoRange(pixels), { low: 500, high: 700 });
});

test('outlines are a cell\'s pixels beside others; two cells that touch have one each', () => {
  const { data, width, height } = labels(['aaab', 'aaab', 'aaab']);
  const style = { outline: [1, 2, 3], fill: 0, background: 'none', ground: [0, 0, 0] };
  const alpha = [...outlines.rasterOutlines(data, width, height, style)].filter((_, i) => i % 4 === 3);
  assert.deepEqual(alpha, [0, 0, 255, 255, 0, 0, 255, 255, 0, 0, 255, 255]);
});

test('lines run along pixel edges, joined where they go on', () => {
  const { data, width, height } = labels(['.aa.', '.aa.', '....']);
  assert.deepEqual(outlines.edgeLines(data, width, height), [1, 2, 3, 2, 1, 0, 1, 2, 3, 0, 3, 2]);
  assert.deepEqual(outlines.maskLines(Uint8Array.of(1), 1, 1), [0, 0, 1, 0, 0, 1, 1, 1, 0, 0, 0, 1, 1, 0, 1, 1]);
});

test('background beside open pixels has no outline', () => {
  const { data, width, height } = labels(['.-', '.-']);
  assert.deepEqual(outlines.edgeLines(data, width, height), []);
});

test('a difference shows what only one of two has', () => {
  const first = Uint32Array.of(0, 2, 2, 1);
  const second = Uint32Array.of(0, 0, 3, 4);
  const alpha = [...outlines.rasterDifference(first, second, 4, [[1, 2, 3], [4, 5, 6]])].filter((_, i) => i % 4 === 3);
  assert.deepEqual(alpha, [0, 150, 0, 150]);
  assert.equal(outlines.rasterDifference(first, null, 4, [[1, 2, 3], [4, 5, 6]])[4], 1);
});
