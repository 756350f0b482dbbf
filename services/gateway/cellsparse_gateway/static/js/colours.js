/** Colours by meaning: Okabe and Ito's palette, which colour-blind people tell apart. */
import { rgb } from './viewer/contrast.js';

export const CELL = '#56b4e9';
export const PREDICTED = '#e69f00';
export const PROPOSED = '#f0e442';
export const BACKGROUND = '#cc79a7';
export const ERASED = '#d55e00';
export const SECOND = '#009e73';

/**
 * @param {string} colour
 * @param {{fill?: boolean, background?: 'hatch' | 'tint' | 'none'}} [options]
 * @returns {import('./viewer/outlines.js').LabelStyle}
 */
export const labelStyle = (colour, { fill = true, background = 'hatch' } = {}) => ({
  outline: rgb(colour),
  fill: fill ? 0.22 : 0,
  background,
  ground: rgb(BACKGROUND),
});
