import assert from 'node:assert/strict';
import { File } from 'node:buffer';
import { createHash, randomBytes } from 'node:crypto';
import { deflateRawSync } from 'node:zlib';
import test from 'node:test';
import { load } from './support.mjs';

const { crc32, piecesOf, Sha256, sumsOf } = await load('sums.js');
const { readZip, writeZip } = await load('zip.js');
const { missing, nameOf, pack } = await load('prompter_files.js');

const COMMENT = 'made elsewhere';
const sha256 = (/** @type {Uint8Array} */ bytes) => createHash('sha256').update(bytes).digest('hex');
const file = (/** @type {string} */ name, /** @type {Uint8Array} */ bytes) => new File([bytes], name);
const bytesOf = async (/** @type {AsyncIterable<Uint8Array>} */ pieces) => {
  const found = [];
  for await (const piece of pieces) found.push(...piece);
  return Uint8Array.from(found);
};

test('SHA-256 is that of Node, however the bytes come', () => {
  for (const size of [0, 1, 55, 56, 57, 63, 64, 65, 119, 120, 1000]) {
    const bytes = randomBytes(size);
    const sum = new Sha256();
    for (let at = 0; at < size; at += 37) sum.update(bytes.subarray(at, at + 37));
    assert.equal(sum.hex(), sha256(bytes), `${size} bytes`);
  }
});

test('CRC-32 goes on where it ended', () => {
  const bytes = new TextEncoder().encode('123456789');
  assert.equal(crc32(bytes), 0xcbf43926);
  assert.equal(crc32(bytes.subarray(4), crc32(bytes.subarray(0, 4))), 0xcbf43926);
});

test('a zip holds files as they are, and is read again', async () => {
  const files = [['encoder.onnx', randomBytes(3_000_000)], ['décoder.onnx', randomBytes(5)], ['empty', new Uint8Array(0)]];
  const members = files.map(([name, bytes]) => ({ name, blob: new Blob([bytes]), crc: crc32(bytes) }));
  const zip = writeZip(members);
  const found = await readZip(zip);
  assert.deepEqual([...found.keys()], files.map(([name]) => name));
  for (const [name, bytes] of files) {
    const sums = await sumsOf(found.get(name).pieces());
    assert.deepEqual(sums, { sha256: sha256(bytes), crc: crc32(bytes), size: bytes.length });
  }
});

test('more than 4 GiB are refused', () => {
  const large = { size: 2 ** 31 };
  assert.throws(() => writeZip([{ name: 'a', blob: large, crc: 0 }, { name: 'b', blob: large, crc: 0 }]), /4 GiB/);
});

test('two files are packed with their sums, and a share tells how far it is', async () => {
  const [one, two] = [randomBytes(2_500_000), randomBytes(700)];
  const shares = [];
  const made = await pack({ encoder: file('x.onnx', one), decoder: file('y.onnx', two), zip: null }, (share) => shares.push(share));
  assert.deepEqual([made.encoder_sha256, made.decoder_sha256], [sha256(one), sha256(two)]);
  assert.deepEqual([...(await readZip(made.body)).keys()], ['encoder.onnx', 'decoder.onnx']);
  assert.deepEqual(shares, [...shares].sort((a, b) => a - b));
  assert.equal(shares.at(-1), 1);
  assert.equal((await bytesOf(piecesOf(new Blob([two])))).length, 700);
});

test('a zip is sent as it is; its files may be compressed', async () => {
  const [one, two] = [Buffer.alloc(200_000, 'abc'), randomBytes(700)];
  const zip = new File([deflated({ 'decoder.onnx': two, 'notes.txt': randomBytes(9), 'encoder.onnx': one })], 'pair.zip');
  const made = await pack({ encoder: null, decoder: null, zip }, () => {});
  assert.equal(made.body, zip);
  assert.deepEqual([made.encoder_sha256, made.decoder_sha256], [sha256(one), sha256(two)]);
});

test('what is no such zip is refused in words', async () => {
  const packed = (bytes) => pack({ encoder: null, decoder: null, zip: file('a.zip', bytes) }, () => {});
  await assert.rejects(packed(randomBytes(500)), /This is not a zip file/);
  await assert.rejects(packed(deflated({ 'encoder.onnx': randomBytes(9) })), /no file decoder\.onnx/);
  const broken = deflated({ 'encoder.onnx': randomBytes(900), 'decoder.onnx': randomBytes(9) });
  broken.fill(255, 45, 200);
  await assert.rejects(packed(broken), /encoder\.onnx in the zip cannot be read/);
  const cut = Buffer.from(broken);
  cut.writeUInt32LE(0, cut.length - COMMENT.length - 6); // the directory would begin with the first file
  await assert.rejects(packed(cut), /The zip cannot be read/);
});

test('names come from files, and what is missing is said', () => {
  assert.equal(nameOf('SAM_vit_b.encoder.onnx'), 'sam-vit-b');
  assert.equal(nameOf('encoder.onnx'), '');
  assert.equal(nameOf(`${'a'.repeat(62)}-b.zip`), 'a'.repeat(62));
  const some = file('a', new Uint8Array(1));
  assert.match(missing({ encoder: null, decoder: null, zip: null }), /a zip of both/);
  assert.match(missing({ encoder: some, decoder: null, zip: null }), /the decoder/);
  assert.match(missing({ encoder: null, decoder: some, zip: null }), /the encoder/);
  assert.equal(missing({ encoder: null, decoder: null, zip: some }), '');
});

/**
 * A zip as other programs write it: compressed, with a comment.
 * @param {Record<string, Uint8Array>} files
 */
function deflated(files) {
  const [parts, directory] = [[], []];
  let offset = 0;
  for (const [name, bytes] of Object.entries(files)) {
    const data = deflateRawSync(bytes);
    const fields = Buffer.alloc(26);
    fields.writeUInt16LE(20, 0);
    fields.writeUInt16LE(8, 4);
    fields.writeUInt32LE(crc32(bytes), 10);
    fields.writeUInt32LE(data.length, 14);
    fields.writeUInt32LE(bytes.length, 18);
    fields.writeUInt16LE(name.length, 22);
    const local = Buffer.concat([Buffer.from('PK\x03\x04'), fields, Buffer.from(name), data]);
    const place = Buffer.alloc(14);
    place.writeUInt32LE(offset, 10);
    directory.push(Buffer.from('PK\x01\x02\x14\x00'), fields, place, Buffer.from(name));
    parts.push(local);
    offset += local.length;
  }
  const [central, comment] = [Buffer.concat(directory), Buffer.from(COMMENT)];
  const end = Buffer.alloc(22);
  end.write('PK\x05\x06');
  [8, 10].forEach((at) => end.writeUInt16LE(Object.keys(files).length, at));
  end.writeUInt32LE(central.length, 12);
  end.writeUInt32LE(offset, 16);
  end.writeUInt16LE(comment.length, 20);
  return Buffer.concat([...parts, central, end, comment]);
}
