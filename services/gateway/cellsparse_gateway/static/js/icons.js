/** Icons of the tools, drawn here. */
import { html } from './html.js';

const PATHS = {
  click: 'M9 4v11l3-3 2.5 5 2-1-2.5-5H18z',
  outline: 'M5 14c-2-5 3-9 8-9 6 0 7 6 5 10-2 3-7 5-10 3M8 18l-1.5 2.5',
  brush: 'M19 4 10 13l2 2 9-9zM9 14c-3 0-3 3-5 5 3 1 7 0 7-3z',
  eraser: 'M13 5l6 6-8 8H7l-3-3zM9 9l6 6M11 19h9',
  background: 'M4 20 20 4M4 12 12 4M12 20l8-8',
  lasso: 'M12 4c5 0 8 2 8 5s-3 5-8 5-8-2-8-5 3-5 8-5zM7 13c-1 3 2 4 1 7M14 17l5 4M19 17l-5 4',
  merge: 'M9 7a5 5 0 1 0 0 10M15 7a5 5 0 1 1 0 10M8 12h8M13 9.5l3 2.5-3 2.5',
  split: 'M12 3v18M8 7a5.5 5.5 0 0 0 0 10M16 7a5.5 5.5 0 0 1 0 10',
  undo: 'M8 8H4V4M4.5 8a8 8 0 1 1-.5 7',
  redo: 'M16 8h4V4M19.500 8a8 8 0 1 0 .5 7',
  help: 'M9 9a3 3 0 1 1 4.500 2.600c-1 .6-1.500 1.200-1.500 2.400M12 18v.5',
  fit: 'M4 9V4h5M20 9V4h-5M4 15v5h5M20 15v5h-5',
};

/** @param {{name: string}} properties */
export const Icon = ({ name }) => html`
  <svg class="icon-svg" viewBox="0 0 24 24" width="22" height="22" fill="none" stroke="currentColor" stroke-width="1.8"
    stroke-linecap="round" stroke-linejoin="round" aria-hidden="true"><path d=${/** @type {any} */ (PATHS)[name]} /></svg>
`;
