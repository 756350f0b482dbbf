/** What to tell people while a call waits for trainers that slept because nobody needed them. */

import * as api from './api.js';

/** How long a call takes before anything is asked, and how often then, milliseconds. */
export const QUIET = 2000;

/**
 * What waits for trainers now, as a sentence; empty: nothing.
 * @param {any} status the answer of /status
 */
export function wakingSentence(status) {
  const waking = (status.services ?? []).filter((/** @type {any} */ one) => one.waking);
  return waking.map((/** @type {any} */ one) => `The ${one.name} trainers were ${one.message}.`).join(' ');
}

/**
 * Awaits a call, and tells meanwhile whether it waits for trainers that sleep.
 * @template T
 * @param {Promise<T>} call
 * @param {(sentence: string) => void} tell takes the sentence of now; empty once there is nothing to tell
 * @param {number} [every] milliseconds
 * @returns {Promise<T>}
 */
export async function whileWaking(call, tell, every = QUIET) {
  let over = false;
  const done = call.finally(() => {
    over = true;
  });
  const watch = async () => {
    while (!over) {
      await Promise.race([api.pause(every), done.catch(() => {})]);
      if (over) return;
      const status = await api.status().catch(() => ({}));
      if (!over) tell(wakingSentence(status));
    }
  };
  watch();
  try {
    return await done;
  } finally {
    tell('');
  }
}
