import assert from 'node:assert/strict';
import test from 'node:test';
import { load } from './support.mjs';

globalThis.document = {};
const { groups, isDense, isOf } = await load('measure.js');

const image = (name, cells, labelled = 50) => ({ id: `im-${name}`, name, cells, labelled_pixels: labelled, height: 10, width: 10, planes: 1 });
const seen = (trained, watched = [], known = true) => ({ trained, watched, known });

test('items are told by their names, also the parts of a large image', () => {
  assert.ok(isOf('a.tif', 'a.tif'));
  assert.ok(isOf('a.tif 12', 'a.tif'));
  assert.ok(isOf('b-c.tif', 'b/c.tif'));
  assert.ok(isOf('image', '???') && isOf('x', '??x') && !isOf('-x', '??x'));
  assert.ok(!isOf('a.tif b', 'a.tif'));
  assert.ok(!isOf('a.tiff', 'a.tif'));
});

test('an image is dense if every pixel of every plane is labelled', () => {
  assert.ok(isDense(image('a', 1, 100)));
  assert.ok(!isDense(image('a', 1, 99)));
  assert.ok(!isDense(image('a', 0, 100)));
  assert.ok(!isDense({ ...image('a', 1, 100), planes: 2 }));
});

test('marks that neither model was trained on come first', () => {
  const images = [image('a', 3), image('b', 4), image('c', 5), image('d', 0)];
  const [only, ...more] = groups(images, [seen(['a']), seen(['a', 'b'], ['c'])]);
  assert.deepEqual(more, []);
  assert.deepEqual(only.images, ['im-c']);
  assert.equal(only.words, 'The 5 cells marked in 1 image, which neither model was trained on. They did choose weights and thresholds.');
  assert.match(groups(images, [seen(['a', 'b'])])[0].words, /which the model was not trained on\.$/);
});

test('without such marks all are taken, and said to flatter', () => {
  const images = [image('a', 3), image('b', 4)];
  const [only] = groups(images, [seen(['a', 'b']), seen(['a'])]);
  assert.deepEqual(only.images, ['im-a', 'im-b']);
  assert.match(only.words, /^The 7 cells marked in 2 images, some of which the models learned from: the scores are too good\.$/);
  assert.match(groups(images, [seen([], [], false)])[0].words, /not known any more/);
});

test('dense labels are a row of their own, unless they are all that is measured on', () => {
  const images = [image('a', 3, 100), image('b', 4)];
  const [marks, dense] = groups(images, [seen(['a'])]);
  assert.deepEqual([marks.images, dense.images], [['im-b'], ['im-a']]);
  assert.match(dense.words, /^All 3 cells of 1 image with every pixel labelled, some of which the model learned from/);
  const [only, ...more] = groups([image('a', 3, 100)], [seen([])]);
  assert.deepEqual([only.images, more], [['im-a'], []]);
  assert.match(only.words, /every pixel labelled, which the model was not trained on\.$/);
  assert.deepEqual(groups([image('a', 0)], [seen([])]), []);
});
