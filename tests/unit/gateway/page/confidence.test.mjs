import assert from 'node:assert/strict';
import test from 'node:test';
import { load } from './support.mjs';

globalThis.document = {};
const { above, countAbove, openCells, spread, tileOrder } = await load('confidence.js');

const cell = (x, y, score, size = 20) => ({ label: 2, x, y, width: size, height: size, plane: 0, planes: 1, score });

test('a predicted cell is open until a mark of about its box is there', () => {
  const predicted = [cell(0, 0, 0.9), cell(100, 0, 0.8), cell(0, 100, 0.7)];
  const open = (marks) => openCells(predicted, marks).map(({ score }) => score);
  assert.deepEqual(open([]), [0.9, 0.8, 0.7]);
  assert.deepEqual(open([cell(0, 0)]), [0.8, 0.7]);
  assert.deepEqual(open([cell(3, 2), cell(95, 0)]), [0.7]);
  assert.deepEqual(open([cell(15, 0), cell(500, 500), cell(0, 0, 0, 300)]), [0.9, 0.8, 0.7]);
});

test('marks are found over any distance of places', () => {
  const predicted = Array.from({ length: 400 }, (_, i) => cell((i % 20) * 37, Math.floor(i / 20) * 41, 0.5, 12 + (i % 9)));
  const marked = predicted.filter((_, i) => i % 3 === 0);
  assert.equal(openCells(predicted, marked).length, predicted.length - marked.length);
});

test('cells from a confidence up, and none without one', () => {
  const cells = [cell(0, 0, 0.5), cell(0, 0, 0.75), cell(0, 0, Math.fround(0.8)), { ...cell(0, 0), score: undefined }];
  assert.equal(above(cells, 0).length, 3);
  assert.equal(above(cells, 0.75).length, 2);
  assert.equal(above(cells, 0.8).length, 1);
  assert.equal(above(cells, 0.81).length, 0);
  const scores = Float64Array.from([0.5, 0.75, Math.fround(0.8)]);
  for (const least of [0, 0.5, 0.6, 0.75, 0.8, 0.81, 1]) assert.equal(countAbove(scores, least), above(cells, least).length);
});

test('the slider goes from the least to just above the greatest confidence', () => {
  assert.equal(spread([]), null);
  assert.equal(spread([{ ...cell(0, 0), score: undefined }]), null);
  const found = spread([cell(0, 0, 0.913), cell(0, 0, 0.402), cell(0, 0, 0.777)]);
  assert.deepEqual([found.low, found.middle, found.high.toFixed(2)], [0.4, 0.77, '0.92']);
  assert.equal(spread([cell(0, 0, 1)]).high, 1);
});

test('cells are taken tile by tile', () => {
  const cells = [cell(600, 0), cell(0, 600), cell(0, 0), cell(511, 511)];
  const order = cells.sort((a, b) => tileOrder(a) - tileOrder(b)).map(({ x, y }) => [x, y]);
  assert.deepEqual(order, [[0, 0], [511, 511], [600, 0], [0, 600]]);
});
