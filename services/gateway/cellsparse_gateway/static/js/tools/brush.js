/** Brush: paints a new cell, or more of the cell under its first point. With Alt, and as the eraser, takes labels away. */
import { CELL, ERASED } from '../colours.js';
import { FIRST_CELL } from '../viewer/outlines.js';
import { brushMask } from './mask.js';
import { strokeTool } from './stroke.js';

export const brush = strokeTool({
  id: 'brush',
  key: '3',
  label: 'Brush',
  hint: 'Paint a cell, or start on one to add to it. Alt erases. [ and ] change the size.',
  round: true,
  colour: (_, alt) => (alt ? ERASED : CELL),
  finish(stage, points, alt, target) {
    const masks = [brushMask(points, stage.brushRadius, stage.image)];
    if (alt) stage.edit({ kind: 'erase', masks }, 'Erased.');
    else if (target >= FIRST_CELL) stage.edit({ kind: 'cell', masks, target }, 'Cell extended.');
    else stage.edit({ kind: 'cell', masks }, 'Cell added.');
  },
});

export const eraser = strokeTool({
  id: 'eraser',
  key: 'e',
  label: 'Eraser',
  hint: 'Take labels away. [ and ] change the size.',
  round: true,
  colour: () => ERASED,
  finish(stage, points) {
    stage.edit({ kind: 'erase', masks: [brushMask(points, stage.brushRadius, stage.image)] }, 'Erased.');
  },
});
