/** Outline: draw around a cell; the line closes itself. */
import { CELL } from '../colours.js';
import { polygonMask, trim } from './mask.js';
import { strokeTool } from './stroke.js';

export const outline = strokeTool({
  id: 'outline',
  key: '2',
  label: 'Outline',
  hint: 'Draw around a cell. The line closes itself.',
  closed: true,
  colour: () => CELL,
  finish(stage, points) {
    const mask = trim(polygonMask(points, stage.image));
    const size = mask?.data.reduce((sum, value) => sum + value, 0) ?? 0;
    if (mask && size >= 4) stage.edit({ kind: 'cell', masks: [mask] }, 'Cell added.');
    else stage.say('That outline holds no pixel: draw a larger one.');
  },
});
