/** Split: a line through a cell cuts it. */
import { ERASED } from '../colours.js';
import { brushMask } from './mask.js';
import { strokeTool } from './stroke.js';

export const split = strokeTool({
  id: 'split',
  key: '7',
  label: 'Split',
  hint: 'Draw a line through a cell that is two.',
  colour: () => ERASED,
  finish(stage, points) {
    stage.edit({ kind: 'split', masks: [brushMask(points, 1, stage.image)] }, 'Cell split.');
  },
});
