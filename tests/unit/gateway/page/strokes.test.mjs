import assert from 'node:assert/strict';
import test from 'node:test';
import { after, load, mask } from './support.mjs';

const { NEW, plan } = await load('store/strokes.js');
const { KEEP } = await load('viewer/labels.js');
const module = { NEW, KEEP, plan };
const result = (stroke, rows) => after(module, stroke, rows);

test('a new cell never overwrites another one, and takes background and open pixels', () => {
  assert.deepEqual(result({ kind: 'cell', masks: [mask(['####'])] }, ['.-aa']), ['AAaa']);
});

test('a stroke around a place fills it', () => {
  const ring = mask(['###', '#.#', '###']);
  assert.deepEqual(result({ kind: 'cell', masks: [ring] }, ['...', '...', '...']), ['AAA', 'AAA', 'AAA']);
});

test('another cell in the hole stays', () => {
  const ring = mask(['###', '#.#', '###']);
  assert.deepEqual(result({ kind: 'cell', masks: [ring] }, ['...', '.b.', '...']), ['AAA', 'AbA', 'AAA']);
});

test('a stroke that began on a cell adds to it, and closes it', () => {
  const rest = mask(['##'], 1, 2);
  assert.deepEqual(result({ kind: 'cell', masks: [rest], target: 2 }, ['aaaa', 'a..a', 'a..a']), ['aaaa', 'aaaa', 'aaaa']);
});

test('background covers only what is open', () => {
  assert.deepEqual(result({ kind: 'background', masks: [mask(['####'])] }, ['..a-']), ['--a-']);
});

test('the eraser takes everything it touches', () => {
  assert.deepEqual(result({ kind: 'erase', masks: [mask(['.###'])] }, ['aab-']), ['a...']);
});

test('deleting takes the whole cell, however far from the click', () => {
  assert.deepEqual(result({ kind: 'delete', masks: [mask(['#'])], target: 2 }, ['aaaaab']), ['.....b']);
});

test('a cell that is none becomes background', () => {
  assert.deepEqual(result({ kind: 'reject', masks: [mask(['#'])], target: 2 }, ['aa.b']), ['--.b']);
  assert.deepEqual(result({ kind: 'reject', masks: [mask(['###'])] }, ['..ab']), ['--ab']);
});

test('the lasso takes cells that lie mostly inside, whole', () => {
  assert.deepEqual(result({ kind: 'lasso', masks: [mask(['####'])] }, ['aaa.bb']), ['....bb']);
  assert.deepEqual(result({ kind: 'lasso', masks: [mask(['##'])] }, ['aaaaab']), ['aaaaab']);
});

test('merging makes one cell of all that the line touches', () => {
  assert.deepEqual(result({ kind: 'merge', masks: [mask(['.####.'])] }, ['aabbbc']), ['aaaaac']);
  assert.deepEqual(result({ kind: 'merge', masks: [mask(['#'])] }, ['aabb']), ['aabb']);
});

test('splitting keeps the number for the largest part and loses no pixel', () => {
  assert.deepEqual(result({ kind: 'split', masks: [mask(['#', '#'], 2)] }, ['aaaaaa', 'aaaaaa']), ['AAAaaa', 'AAAaaa']);
});

test('a line that does not part a cell changes nothing', () => {
  assert.deepEqual(result({ kind: 'split', masks: [mask(['#'], 2)] }, ['aaaaaa', 'aaaaaa']), ['aaaaaa', 'aaaaaa']);
});

test('accepting many leaves out those on drawn cells and never changes these', () => {
  const masks = [mask(['##']), mask(['####'], 3)];
  assert.deepEqual(result({ kind: 'accept', masks }, ['...bb..']), ['AA.bb..']);
});

test('nothing to do is no edit', () => {
  assert.equal(plan({ kind: 'erase', plane: 0, masks: [mask(['##'])] }, () => new Uint32Array(2), { width: 2, height: 1, levels: 1 }), null);
});
