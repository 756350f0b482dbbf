/** The tools in the order of the rail. */
import { background } from './background.js';
import { brush, eraser } from './brush.js';
import { click } from './click.js';
import { lasso } from './lasso.js';
import { merge } from './merge.js';
import { outline } from './outline.js';
import { split } from './split.js';

export { click };
/** @type {import('./stroke.js').Tool[]} */
export const TOOLS = [click, outline, brush, eraser, background, lasso, merge, split];
