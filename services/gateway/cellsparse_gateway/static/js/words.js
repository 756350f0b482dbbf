/** States, names and times in words. */

export const BACKENDS = { stardist: 'StarDist', cellpose: 'Cellpose', unet: 'U-Net', cellpose_sam: 'Cellpose-SAM' };

const STATES = {
  RUN_STATE_QUEUED: 'Waiting',
  RUN_STATE_STARTING: 'Starting',
  RUN_STATE_RUNNING: 'Training',
  RUN_STATE_RETRYING: 'Trying again',
  RUN_STATE_SUCCEEDED: 'Done',
  RUN_STATE_FAILED: 'Failed',
  RUN_STATE_CANCELLED: 'Stopped',
};

const REASONS = {
  FAILURE_REASON_USER_ERROR: 'These labels or settings cannot be trained on.',
  FAILURE_REASON_OUT_OF_MEMORY: 'The memory was not enough.',
  FAILURE_REASON_EVICTED: 'The cluster took the place away.',
  FAILURE_REASON_UNSCHEDULABLE: 'There is no machine that fits.',
  FAILURE_REASON_LOST: 'The trainer went away.',
  FAILURE_REASON_STORAGE: 'The storage could not be read or written.',
  FAILURE_REASON_INTERNAL: 'Something is wrong in the program; its log says more.',
};

/** @param {string} state */
export const stateWord = (state) => /** @type {Record<string, string>} */ (STATES)[state] ?? 'Unknown';

/** @param {string} state */
export const ended = (state) => /SUCCEEDED|FAILED|CANCELLED/.test(state ?? '');

/** @param {string} name */
export const backendWord = (name) => /** @type {Record<string, string>} */ (BACKENDS)[name] ?? name;

/**
 * @param {{reason?: string, message?: string}} run
 * @returns {string} why, in words; empty if there is nothing to say
 */
export function why({ reason = '', message = '' }) {
  return message || /** @type {Record<string, string>} */ (REASONS)[reason] || '';
}

/** @param {number} seconds */
export function duration(seconds) {
  if (!Number.isFinite(seconds) || seconds < 0) return '';
  if (seconds < 90) return `${Math.max(1, Math.round(seconds))} s`;
  if (seconds < 5400) return `${Math.round(seconds / 60)} min`;
  return `${(seconds / 3600).toFixed(1)} h`;
}

/** @param {string} time RFC 3339 */
export function when(time) {
  const then = new Date(time);
  if (Number.isNaN(then.getTime())) return '';
  const seconds = (Date.now() - then.getTime()) / 1000;
  if (seconds < 60) return 'just now';
  if (seconds < 3600) return `${Math.round(seconds / 60)} min ago`;
  if (seconds < 86400) return `${Math.round(seconds / 3600)} h ago`;
  return then.toLocaleDateString(undefined, { day: 'numeric', month: 'short', year: 'numeric' });
}

/**
 * @param {number} count
 * @param {string} one
 * @param {string} [many]
 */
export const counted = (count, one, many = `${one}s`) => `${Number(count).toLocaleString('en')} ${Number(count) === 1 ? one : many}`;

/** @param {number} bytes */
export function size(bytes) {
  if (bytes < 1e6) return `${Math.max(1, Math.round(bytes / 1e3))} kB`;
  return bytes < 1e9 ? `${Math.round(bytes / 1e6)} MB` : `${(bytes / 1e9).toFixed(1)} GB`;
}
