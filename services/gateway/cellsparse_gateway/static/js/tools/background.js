/** Background brush: marks what is surely no cell. It never paints over a cell. */
import { BACKGROUND, ERASED } from '../colours.js';
import { brushMask } from './mask.js';
import { strokeTool } from './stroke.js';

export const background = strokeTool({
  id: 'background',
  key: '4',
  label: 'Background',
  hint: 'Paint where there is no cell. Alt erases. [ and ] change the size.',
  round: true,
  colour: (_, alt) => (alt ? ERASED : BACKGROUND),
  finish(stage, points, alt) {
    const masks = [brushMask(points, stage.brushRadius, stage.image)];
    stage.edit({ kind: alt ? 'erase' : 'background', masks }, alt ? 'Erased.' : 'Background marked.');
  },
});
