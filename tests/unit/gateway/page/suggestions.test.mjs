import assert from 'node:assert/strict';
import test from 'node:test';
import { deflateSync } from 'node:zlib';
import { after, load, mask } from './support.mjs';

const { isOn, middle, Queue, read, viewOf } = await load('suggestions.js');
const { NEW, plan } = await load('store/strokes.js');
const { KEEP } = await load('viewer/labels.js');

const found = (image, rows, kind = 'CELL') => ({
  image_id: image,
  kind: `SUGGESTION_KIND_${kind}`,
  reason: 'Typical.',
  x: 10,
  y: 20,
  width: rows[0].length,
  height: rows.length,
  data: deflateSync(Uint8Array.from(rows.join(''), (letter) => ({ '.': 0, '#': 1, o: 2 })[letter])).toString('base64'),
});

test('a suggestion is a cell and the background around it', async () => {
  const cell = await read(found('im-1', ['ooo', 'o#o', 'ooo']));
  assert.equal(cell.kind, 'cell');
  assert.deepEqual([...cell.cell.data], [0, 0, 0, 0, 1, 0, 0, 0, 0]);
  assert.deepEqual([...cell.ground.data], [1, 1, 1, 1, 0, 1, 1, 1, 1]);
  assert.ok(isOn(cell, [11.5, 21.5]));
  assert.ok(!isOn(cell, [10.5, 20.5]));
  const spot = await read(found('im-1', ['oo'], 'BACKGROUND'));
  assert.equal(spot.cell, null);
  assert.ok(isOn(spot, [10.5, 20.5]));
});

test('the middle is a pixel of the cell, also of a bent one', async () => {
  const bent = await read(found('im-1', ['##.', '#..', '##.']));
  assert.ok(isOn(bent, middle(bent)));
  const round = await read(found('im-1', ['.#.', '###', '.#.']));
  assert.deepEqual(middle(round), [11.5, 21.5]);
});

test('the view has the suggestion in its middle', async () => {
  const cell = await read(found('im-1', ['##########', '##########']));
  const { x, y, scale } = viewOf(cell, 700, 1400);
  assert.equal(scale, 10);
  assert.deepEqual([(15 - x) * scale, (21 - y) * scale], [350, 700]);
});

test('next goes round over what is open, and ends', async () => {
  const queue = new Queue('pr-1');
  queue.all = await Promise.all(['a', 'b', 'c'].map((image) => read(found(image, ['#']))));
  assert.equal(queue.next().image, 'a');
  assert.equal(queue.next().image, 'b');
  queue.current.decision = 'accepted';
  assert.equal(queue.next().image, 'c');
  assert.equal(queue.next().image, 'a');
  assert.equal(queue.open, 2);
  queue.current.decision = 'rejected';
  assert.equal(queue.next().image, 'c');
  assert.equal(queue.next().image, 'c');
  queue.current.decision = 'redrawn';
  assert.equal(queue.next(), null);
  assert.equal(queue.current, null);
});

test('accepting makes one cell and its background in one edit, and overwrites nothing', () => {
  const stroke = { kind: 'suggested', masks: [mask(['.##.']), mask(['#..#'])] };
  assert.deepEqual(after({ NEW, KEEP, plan }, stroke, ['....']), ['-AA-']);
  assert.deepEqual(after({ NEW, KEEP, plan }, stroke, ['a.-b']), ['aA-b']);
});
