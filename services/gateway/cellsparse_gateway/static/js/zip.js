/** Zip files: written without compression, read as far as the sums of what they hold need it. */
import { piecesOf } from './sums.js';

const LOCAL = 0x04034b50;
const CENTRAL = 0x02014b50;
const END = 0x06054b50;
const LOCAL_BYTES = 30;
const CENTRAL_BYTES = 46;
const END_BYTES = 22;
/** Longest comment behind the end of a zip. */
const COMMENT = 0xffff;
/** Sizes from here on need Zip64. */
const LARGEST = 0xffffffff;
/** Names are UTF-8. */
const UTF8 = 0x800;
const ENCRYPTED = 1;
const STORED = 0;
const DEFLATED = 8;
/** 1 January 1980, the first day that zip files know: the same files make the same zip. */
const DAY = 0x21;

/**
 * @typedef {{name: string, blob: Blob, crc: number}} Member
 * @typedef {{name: string, pieces: () => AsyncIterable<Uint8Array>, size: number}} Found
 */

/**
 * @param {number} bytes
 * @param {[number, number, number][]} fields offset, bytes, value
 */
function record(bytes, fields) {
  const view = new DataView(new ArrayBuffer(bytes));
  for (const [at, width, value] of fields) {
    if (width === 2) view.setUint16(at, value, true);
    else view.setUint32(at, value, true);
  }
  return view.buffer;
}

/**
 * A zip that holds files as they are. It refers to them: nothing is read.
 * @param {Member[]} members
 */
export function writeZip(members) {
  /** @type {BlobPart[]} */
  const parts = [];
  /** @type {BlobPart[]} */
  const directory = [];
  let offset = 0;
  let length = 0;
  for (const { name, blob, crc } of members) {
    const title = new TextEncoder().encode(name);
    const shared = (/** @type {number} */ at) => /** @type {[number, number, number][]} */ ([
      [at, 2, 20], [at + 2, 2, UTF8], [at + 4, 2, STORED], [at + 8, 2, DAY],
      [at + 10, 4, crc], [at + 14, 4, blob.size], [at + 18, 4, blob.size], [at + 22, 2, title.length],
    ]);
    parts.push(record(LOCAL_BYTES, [[0, 4, LOCAL], ...shared(4)]), title, blob);
    directory.push(record(CENTRAL_BYTES, [[0, 4, CENTRAL], [4, 2, 20], ...shared(6), [42, 4, offset]]), title);
    offset += LOCAL_BYTES + title.length + blob.size;
    length += CENTRAL_BYTES + title.length;
    if (offset + length >= LARGEST) throw new Error('The files are larger than 4 GiB together, the most that a zip holds.');
  }
  const count = members.length;
  const end = record(END_BYTES, [[0, 4, END], [8, 2, count], [10, 2, count], [12, 4, length], [16, 4, offset]]);
  return new Blob([...parts, ...directory, end], { type: 'application/zip' });
}

/** @param {Blob} blob @param {number} from @param {number} to */
const viewOf = async (blob, from, to) => new DataView(await blob.slice(from, to).arrayBuffer());

/**
 * The files in a zip, by their names.
 * @param {Blob} blob
 * @returns {Promise<Map<string, Found>>}
 */
export async function readZip(blob) {
  const begin = Math.max(0, blob.size - END_BYTES - COMMENT);
  const tail = await viewOf(blob, begin, blob.size);
  let end = tail.byteLength - END_BYTES;
  while (end >= 0 && tail.getUint32(end, true) !== END) end -= 1;
  if (end < 0) throw new Error('This is not a zip file.');
  const count = tail.getUint16(end + 10, true);
  const length = tail.getUint32(end + 12, true);
  const offset = tail.getUint32(end + 16, true);
  const directory = await viewOf(blob, offset, offset + length);
  /** @type {Map<string, Found>} */
  const found = new Map();
  let at = 0;
  for (let number = 0; number < count; number += 1) {
    if (at + CENTRAL_BYTES > directory.byteLength || directory.getUint32(at, true) !== CENTRAL) {
      throw new Error('The zip cannot be read. Choose its two files instead.');
    }
    const entry = new DataView(directory.buffer, at, CENTRAL_BYTES);
    const named = entry.getUint16(28, true);
    const name = new TextDecoder().decode(new Uint8Array(directory.buffer).subarray(at + CENTRAL_BYTES, at + CENTRAL_BYTES + named));
    found.set(name, member(blob, entry, name));
    at += CENTRAL_BYTES + named + entry.getUint16(30, true) + entry.getUint16(32, true);
  }
  return found;
}

/**
 * @param {Blob} blob
 * @param {DataView} entry of the directory
 * @param {string} name
 * @returns {Found}
 */
function member(blob, entry, name) {
  const [flags, method, packed, local] = [entry.getUint16(8, true), entry.getUint16(10, true), entry.getUint32(20, true), entry.getUint32(42, true)];
  return {
    name,
    size: entry.getUint32(24, true),
    async *pieces() {
      const plain = !(flags & ENCRYPTED) && (method === STORED || method === DEFLATED) && packed !== LARGEST && local !== LARGEST;
      const head = await viewOf(blob, local, local + LOCAL_BYTES);
      if (!plain || head.byteLength < LOCAL_BYTES || head.getUint32(0, true) !== LOCAL) throw unreadable(name);
      const from = local + LOCAL_BYTES + head.getUint16(26, true) + head.getUint16(28, true);
      const data = blob.slice(from, from + packed);
      if (method === STORED) yield* piecesOf(data);
      else yield* inflated(data, name);
    },
  };
}

/**
 * @param {Blob} data
 * @param {string} name
 * @returns {AsyncGenerator<Uint8Array>}
 */
async function* inflated(data, name) {
  const reader = data.stream().pipeThrough(/** @type {any} */ (new DecompressionStream('deflate-raw'))).getReader();
  for (;;) {
    const { done, value } = await reader.read().catch(() => {
      throw unreadable(name);
    });
    if (done) return;
    yield value;
  }
}

/** @param {string} name */
const unreadable = (name) => new Error(`${name} in the zip cannot be read. Choose the two files instead.`);
