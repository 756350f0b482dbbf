/**
 * SHA-256 and CRC-32 of a file, piece by piece. The browser's own SHA-256 needs the whole file in memory, and is missing
 * where the page comes over plain HTTP from another machine.
 */

/** Bytes read at a time. */
const PIECE = 2 ** 20;

const PRIMES = firstPrimes(64);
/** The first 32 bits of the fractional part of a root of a prime: FIPS 180-4, 4.2.2 and 5.3.3. */
const fraction = (/** @type {number} */ root) => Math.floor((root - Math.floor(root)) * 2 ** 32) | 0;
const ROUNDS = Int32Array.from(PRIMES, (prime) => fraction(Math.cbrt(prime)));
const START = PRIMES.slice(0, 8).map((prime) => fraction(Math.sqrt(prime)));

/** @param {number} count */
function firstPrimes(count) {
  /** @type {number[]} */
  const found = [];
  for (let number = 2; found.length < count; number += 1) if (found.every((prime) => number % prime)) found.push(number);
  return found;
}

const CRC_TABLE = Uint32Array.from({ length: 256 }, (_, byte) => {
  let value = byte;
  for (let bit = 0; bit < 8; bit += 1) value = value & 1 ? 0xedb88320 ^ (value >>> 1) : value >>> 1;
  return value;
});

/** SHA-256 of bytes that come in pieces. */
export class Sha256 {
  constructor() {
    this.state = Int32Array.from(START);
    this.words = new Int32Array(64);
    this.block = new Uint8Array(64);
    this.size = 0;
  }

  /** @param {Uint8Array} bytes */
  update(bytes) {
    let at = 0;
    const waiting = this.size % 64;
    this.size += bytes.length;
    if (waiting) {
      at = Math.min(64 - waiting, bytes.length);
      this.block.set(bytes.subarray(0, at), waiting);
      if (waiting + at < 64) return;
      this.mix(this.block, 0);
    }
    for (; at + 64 <= bytes.length; at += 64) this.mix(bytes, at);
    this.block.set(bytes.subarray(at));
  }

  /** @returns {string} the sum, hex; nothing may be added afterwards */
  hex() {
    const bits = this.size * 8;
    const end = new Uint8Array(64 - ((this.size + 8) % 64) + 8);
    end[0] = 0x80;
    const view = new DataView(end.buffer);
    view.setUint32(end.length - 8, Math.floor(bits / 2 ** 32));
    view.setUint32(end.length - 4, bits % 2 ** 32);
    this.update(end);
    return [...this.state].map((word) => (word >>> 0).toString(16).padStart(8, '0')).join('');
  }

  /**
   * One block of 64 bytes: FIPS 180-4, 6.2.2.
   * @param {Uint8Array} bytes
   * @param {number} at
   */
  mix(bytes, at) {
    const { state, words } = this;
    for (let i = 0, p = at; i < 16; i += 1, p += 4) {
      words[i] = (bytes[p] << 24) | (bytes[p + 1] << 16) | (bytes[p + 2] << 8) | bytes[p + 3];
    }
    for (let i = 16; i < 64; i += 1) {
      const near = words[i - 2];
      const far = words[i - 15];
      const one = ((near >>> 17) | (near << 15)) ^ ((near >>> 19) | (near << 13)) ^ (near >>> 10);
      const zero = ((far >>> 7) | (far << 25)) ^ ((far >>> 18) | (far << 14)) ^ (far >>> 3);
      words[i] = (one + words[i - 7] + zero + words[i - 16]) | 0;
    }
    let a = state[0];
    let b = state[1];
    let c = state[2];
    let d = state[3];
    let e = state[4];
    let f = state[5];
    let g = state[6];
    let h = state[7];
    for (let i = 0; i < 64; i += 1) {
      const one = ((e >>> 6) | (e << 26)) ^ ((e >>> 11) | (e << 21)) ^ ((e >>> 25) | (e << 7));
      const first = (h + one + ((e & f) ^ (~e & g)) + ROUNDS[i] + words[i]) | 0;
      const zero = ((a >>> 2) | (a << 30)) ^ ((a >>> 13) | (a << 19)) ^ ((a >>> 22) | (a << 10));
      const second = (zero + ((a & b) ^ (a & c) ^ (b & c))) | 0;
      h = g;
      g = f;
      f = e;
      e = (d + first) | 0;
      d = c;
      c = b;
      b = a;
      a = (first + second) | 0;
    }
    state[0] += a;
    state[1] += b;
    state[2] += c;
    state[3] += d;
    state[4] += e;
    state[5] += f;
    state[6] += g;
    state[7] += h;
  }
}

/**
 * CRC-32 as zip files have it.
 * @param {Uint8Array} bytes
 * @param {number} [before] of the bytes before these
 */
export function crc32(bytes, before = 0) {
  let value = ~before;
  for (let i = 0; i < bytes.length; i += 1) value = CRC_TABLE[(value ^ bytes[i]) & 255] ^ (value >>> 8);
  return ~value >>> 0;
}

/**
 * @param {AsyncIterable<Uint8Array>} pieces
 * @param {(bytes: number) => void} [progress] told how many bytes are done
 */
export async function sumsOf(pieces, progress) {
  const sha256 = new Sha256();
  let crc = 0;
  let size = 0;
  for await (const piece of pieces) {
    sha256.update(piece);
    crc = crc32(piece, crc);
    size += piece.length;
    progress?.(size);
  }
  return { sha256: sha256.hex(), crc, size };
}

/**
 * A file's bytes, a piece at a time, so that the page stays awake.
 * @param {Blob} blob
 * @returns {AsyncGenerator<Uint8Array>}
 */
export async function* piecesOf(blob) {
  for (let at = 0; at < blob.size; at += PIECE) yield new Uint8Array(await blob.slice(at, at + PIECE).arrayBuffer());
}
