/** Merge: a line across cells makes them one. */
import { CELL } from '../colours.js';
import { brushMask } from './mask.js';
import { strokeTool } from './stroke.js';

export const merge = strokeTool({
  id: 'merge',
  key: '6',
  label: 'Merge',
  hint: 'Draw a line across cells that are one.',
  colour: () => CELL,
  finish(stage, points) {
    stage.edit({ kind: 'merge', masks: [brushMask(points, 0.7, stage.image)] }, 'Cells merged.');
  },
});
