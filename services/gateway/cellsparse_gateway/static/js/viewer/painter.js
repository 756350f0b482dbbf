/** Asks the worker for bitmaps. One worker serves the whole page. */

/** @type {Map<number, {resolve: (value: any) => void, reject: (error: Error) => void}>} */
const waiting = new Map();
/** @type {Worker | null} */
let worker = null;
let last = 0;

function start() {
  const made = new Worker(new URL('./worker.js', import.meta.url), { type: 'module' });
  made.onmessage = ({ data: { id, value, error } }) => {
    const call = waiting.get(id);
    waiting.delete(id);
    if (error) call?.reject(new Error(error));
    else call?.resolve(value);
  };
  return made;
}

/**
 * @param {'image' | 'labels' | 'difference' | 'range'} kind
 * @param {unknown} job
 * @param {Transferable[]} [moved]
 * @returns {Promise<any>}
 */
export function paint(kind, job, moved = []) {
  worker ??= start();
  last += 1;
  const id = last;
  return new Promise((resolve, reject) => {
    waiting.set(id, { resolve, reject });
    worker?.postMessage({ id, kind, job }, moved);
  });
}
