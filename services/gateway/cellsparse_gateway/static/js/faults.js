/** What was wrong with the files of an upload, and which files were left out: a list that stays until it is closed. */
import { html } from './html.js';
import { counted } from './words.js';

/** Most entries that are listed; others are counted. */
const MOST = 20;
/** Microscopes' own files, which are converted where they lie. */
const VENDOR = /\.(czi|lif|nd2)$/i;

/**
 * @typedef {{name: string, sentences: string[]}} Entry a file, and what is to be said about it
 * @typedef {{failed: Entry[], leftOut: Entry[]}} Outcome
 */

/** @type {Outcome} */
export const ALL_GOOD = { failed: [], leftOut: [] };

/**
 * Why a file is not sent at all; empty: it is sent.
 * @param {string} name
 * @param {boolean} folder
 */
export function whyLeftOut(name, folder) {
  if (folder) return 'is a folder: open it and drop its images';
  if (name.startsWith('.')) return 'is a hidden file';
  if (VENDOR.test(name)) return 'is a microscope\'s own file: the Python client converts it on your computer (Client.add_project_image)';
  return '';
}

/**
 * The sentences of a failed upload: of each fault, if the server told several.
 * @param {unknown} error
 * @returns {string[]}
 */
export function sentencesOf(error) {
  const faults = /** @type {any} */ (error)?.errors ?? [];
  return faults.length > 1 ? faults.map((/** @type {any} */ fault) => fault.detail) : [error instanceof Error ? error.message : String(error)];
}

/**
 * The first entries of a list, and how many others there are.
 * @param {Entry[]} entries
 */
export const listed = (entries) => ({ shown: entries.slice(0, MOST), more: Math.max(0, entries.length - MOST) });

/** @param {{title: string, entries: Entry[]}} properties */
function Entries({ title, entries }) {
  const { shown, more } = listed(entries);
  if (!shown.length) return null;
  return html`
    <p>${title}</p>
    <ul>
      ${shown.map(({ name, sentences }) => html`
        <li key=${name}><b>${name}</b> ${sentences.length > 1 ? html`<ul>${sentences.map((sentence) => html`<li>${sentence}</li>`)}</ul>` : sentences[0]}</li>
      `)}
      ${more > 0 && html`<li>and ${counted(more, 'more file')}.</li>`}
    </ul>
  `;
}

/** @param {{outcome: Outcome, onClose: () => void}} properties */
export function FaultList({ outcome: { failed, leftOut }, onClose }) {
  if (!failed.length && !leftOut.length) return null;
  return html`
    <section class="faults" aria-label="Files that were not added">
      <button class="link" onClick=${onClose}>Close the list</button>
      <${Entries} title=${`${counted(failed.length, 'file')} ${failed.length === 1 ? 'was' : 'were'} not added.`} entries=${failed} />
      <${Entries} title=${`${counted(leftOut.length, 'file')} ${leftOut.length === 1 ? 'was' : 'were'} left out.`} entries=${leftOut} />
    </section>
  `;
}
