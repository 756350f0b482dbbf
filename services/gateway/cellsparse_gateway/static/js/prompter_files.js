/** A Segment Anything model as the server takes it: a zip of two files, and their SHA-256. */
import { piecesOf, sumsOf } from './sums.js';
import { readZip, writeZip } from './zip.js';

export const ENCODER = 'encoder.onnx';
export const DECODER = 'decoder.onnx';

/**
 * @typedef {{encoder: File | null, decoder: File | null, zip: File | null}} Chosen
 * @typedef {{body: Blob, encoder_sha256: string, decoder_sha256: string}} Packed
 */

/**
 * What is missing before a model can be sent.
 * @param {Chosen} chosen
 * @returns {string} a sentence; empty if nothing is
 */
export function missing({ encoder, decoder, zip }) {
  if (zip || (encoder && decoder)) return '';
  if (encoder) return 'Choose the decoder, too.';
  if (decoder) return 'Choose the encoder, too.';
  return 'Choose the encoder and the decoder, or a zip of both.';
}

/**
 * A name for a model, from that of its file: "SAM_vit_b.encoder.onnx" is "sam-vit-b".
 * @param {string} file
 */
export function nameOf(file) {
  const words = file.toLowerCase().replace(/\.(onnx|zip)$/, '').split(/[^a-z0-9]+/);
  return words.filter((word) => word && word !== 'encoder' && word !== 'decoder').join('-').slice(0, 63).replace(/-$/, '');
}

/**
 * @param {Chosen} chosen
 * @param {(share: number) => void} progress
 * @returns {Promise<Packed>}
 */
export async function pack({ encoder, decoder, zip }, progress) {
  const files = zip ? await inZip(zip) : [ENCODER, DECODER].map((name, index) => plain(name, /** @type {File} */ (index ? decoder : encoder)));
  const total = files.reduce((sum, file) => sum + file.size, 0) || 1;
  const sums = [];
  let before = 0;
  for (const file of files) {
    sums.push(await sumsOf(file.pieces(), (bytes) => progress(Math.min(1, (before + bytes) / total))));
    before += file.size;
  }
  const body = zip ?? writeZip(files.map(({ name, blob }, index) => ({ name, blob: /** @type {Blob} */ (blob), crc: sums[index].crc })));
  return { body, encoder_sha256: sums[0].sha256, decoder_sha256: sums[1].sha256 };
}

/** @param {string} name @param {File} file */
const plain = (name, file) => ({ name, blob: /** @type {Blob | null} */ (file), size: file.size, pieces: () => told(file) });

/**
 * A chosen file's bytes; browsers refuse a file that was changed after it was chosen.
 * @param {File} file
 */
async function* told(file) {
  try {
    yield* piecesOf(file);
  } catch (error) {
    if (!(error instanceof DOMException) || error.name === 'AbortError') throw error;
    throw new Error(`${file.name} cannot be read. Was it changed? Choose it again.`);
  }
}

/** @param {File} zip */
async function inZip(zip) {
  const found = await readZip(zip);
  return [ENCODER, DECODER].map((name) => {
    const member = found.get(name);
    if (!member) throw new Error(`The zip has no file ${name}.`);
    return { ...member, blob: /** @type {Blob | null} */ (null) };
  });
}
