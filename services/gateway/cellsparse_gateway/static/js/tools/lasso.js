/** Lasso: deletes the annotated cells that lie mostly inside. */
import { ERASED } from '../colours.js';
import { polygonMask, trim } from './mask.js';
import { strokeTool } from './stroke.js';

export const lasso = strokeTool({
  id: 'lasso',
  key: '5',
  label: 'Lasso delete',
  hint: 'Draw around cells to delete them.',
  closed: true,
  colour: () => ERASED,
  finish(stage, points) {
    const mask = trim(polygonMask(points, stage.image));
    if (mask) stage.edit({ kind: 'lasso', masks: [mask] }, 'Cells deleted.');
  },
});
