/** Curves of a training, drawn by uPlot as they grow. */
import uPlot from '../vendor/uplot/uPlot.mjs';
import { html, useEffect, useRef } from './html.js';

/**
 * @param {string} colour
 * @param {string} label
 * @param {number} width
 * @param {number} height
 * @param {[number, number] | null} range
 */
const options = (colour, label, width, height, range) => ({
  width,
  height,
  legend: { show: false },
  cursor: { y: false },
  padding: [8, 16, 0, 0],
  scales: { x: { time: false }, ...(range ? { y: { range } } : {}) },
  series: [{}, { label, stroke: colour, width: 2, points: { show: (/** @type {any} */ plot) => plot.data[0].length < 3, size: 7, fill: colour } }],
  axes: [
    { stroke: '#9aa4b2', grid: { show: false }, ticks: { show: false }, size: 22, font: '11px system-ui', space: 60 },
    { stroke: '#9aa4b2', grid: { stroke: '#2b313a', width: 1 }, ticks: { show: false }, size: 42, font: '11px system-ui', space: 28 },
  ],
});

/**
 * @param {{curve: import('./runs.js').Curve, label: string, colour: string, range?: [number, number] | null, height?: number}} properties
 */
export function Chart({ curve, label, colour, range = null, height = 96 }) {
  const holder = useRef(null);
  const plot = useRef(/** @type {any} */ (null));
  useEffect(() => {
    const element = /** @type {any} */ (holder.current);
    plot.current = new uPlot(options(colour, label, element.clientWidth || 240, height, range), [[], []], element);
    const observer = new ResizeObserver(() => plot.current?.setSize({ width: element.clientWidth, height }));
    observer.observe(element);
    return () => {
      observer.disconnect();
      plot.current?.destroy();
      plot.current = null;
    };
  }, []);
  useEffect(() => {
    plot.current?.setData([curve.steps, curve.values]);
  }, [curve]);
  const last = curve.values.at(-1);
  const text = last === undefined ? 'no value yet' : last.toFixed(3);
  return html`
    <figure class="chart" role="img" aria-label=${`${label}: ${text}`}>
      <figcaption><span>${label}</span><b>${last === undefined ? '–' : text}</b></figcaption>
      <div ref=${holder}></div>
    </figure>
  `;
}
