/**
 * What all drawing tools share: a stroke begins, takes points, and ends as an edit.
 *
 * @typedef {import('./mask.js').Point} Point
 * @typedef {import('../stage.js').Stage} Stage
 * @typedef {{id: string, key: string, label: string, hint: string, round?: boolean, begin: (stage: Stage, at: Point, alt: boolean) => void,
 *   extend: (stage: Stage, at: Point) => void, end: (stage: Stage) => void, cancel: () => void, active: () => boolean,
 *   hover?: (stage: Stage, at: Point) => void, draw: (stage: Stage, context: CanvasRenderingContext2D) => void}} Tool
 */

/**
 * @param {{id: string, key: string, label: string, hint: string, round?: boolean, closed?: boolean,
 *   colour: (stage: Stage, alt: boolean, target: number) => string,
 *   finish: (stage: Stage, points: Point[], alt: boolean, target: number) => void}} rules
 * @returns {Tool}
 */
export function strokeTool({ colour, finish, closed = false, ...named }) {
  /** @type {Point[]} */
  let points = [];
  let other = false;
  let target = 0;
  return {
    ...named,
    begin(stage, at, alt) {
      points = [at];
      other = alt;
      target = stage.annotation.at(at[0], at[1], stage.plane);
    },
    extend(stage, at) {
      const [x, y] = points[points.length - 1];
      if (Math.hypot(at[0] - x, at[1] - y) * stage.viewer.view.scale >= 1) points.push(at);
    },
    end(stage) {
      const drawn = points;
      points = [];
      if (drawn.length) finish(stage, drawn, other, target);
    },
    cancel() {
      points = [];
    },
    active: () => points.length > 0,
    draw(stage, context) {
      const scale = stage.viewer.view.scale;
      const paint = colour(stage, points.length ? other : stage.alt, target);
      const radius = named.round ? stage.brushRadius * scale : 1.5;
      context.strokeStyle = paint;
      context.lineCap = 'round';
      context.lineJoin = 'round';
      if (points.length) {
        const line = new Path2D();
        points.forEach(([x, y], index) => {
          const [sx, sy] = stage.viewer.toScreen(x, y);
          if (index) line.lineTo(sx, sy);
          else line.moveTo(sx, sy);
        });
        if (points.length === 1) line.lineTo(...stage.viewer.toScreen(...points[0]));
        context.globalAlpha = named.round ? 0.5 : 1;
        context.lineWidth = Math.max(2 * radius, 2);
        context.stroke(line);
        context.globalAlpha = 1;
        if (closed && points.length > 2) {
          const [ax, ay] = stage.viewer.toScreen(...points[0]);
          const [bx, by] = stage.viewer.toScreen(...points[points.length - 1]);
          context.setLineDash([5, 5]);
          context.lineWidth = 1.5;
          context.beginPath();
          context.moveTo(bx, by);
          context.lineTo(ax, ay);
          context.stroke();
          context.setLineDash([]);
        }
      }
      if (named.round && stage.pointer) {
        const [x, y] = stage.viewer.toScreen(...stage.pointer);
        context.lineWidth = 1.5;
        context.beginPath();
        context.arc(x, y, Math.max(radius, 2), 0, 2 * Math.PI);
        context.stroke();
      }
    },
  };
}
