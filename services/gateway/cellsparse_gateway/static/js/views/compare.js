/** Two models on one image, side by side or as differences. */
import * as api from '../api.js';
import { labelStyle, PREDICTED, SECOND } from '../colours.js';
import { html, useEffect, useRef, useState } from '../html.js';
import { Measured } from '../measure.js';
import { firstChannels } from '../stage.js';
import { DifferenceTiles } from '../viewer/difference.js';
import { LabelTiles } from '../viewer/labels.js';
import { ImageTiles } from '../viewer/tiles.js';
import { Viewer } from '../viewer/view.js';
import { whileWaking } from '../waking.js';
import { backendWord, counted, when } from '../words.js';
import { Header } from './header.js';
import { projectModels } from './models.js';

/** @param {{project: string, fail: (error: unknown) => void}} properties */
export function CompareView({ project: id, fail }) {
  const [project, setProject] = useState(/** @type {any} */ (null));
  const [images, setImages] = useState(/** @type {any[]} */ ([]));
  const [models, setModels] = useState(/** @type {any[] | null} */ (null));
  const [chosen, setChosen] = useState({ image: '', first: '', second: '' });
  const [overlaid, setOverlaid] = useState(false);
  const [layers, setLayers] = useState(/** @type {any[]} */ ([]));
  const [busy, setBusy] = useState(false);
  const [waking, setWaking] = useState('');
  useEffect(() => {
    const open = async () => {
      const [now, all, found] = await Promise.all([api.project(id), api.images(id), projectModels(id)]);
      setProject(now);
      setImages(all);
      setModels(found);
      setChosen({ image: all[0]?.id ?? '', first: found[0]?.id ?? '', second: (found[1] ?? found[0])?.id ?? '' });
    };
    open().catch(fail);
  }, [id]);
  useEffect(() => {
    let gone = false;
    const predict = async () => {
      if (!chosen.image || !chosen.first || !chosen.second) return;
      setBusy(true);
      setLayers([]);
      const there = await api.layers(chosen.image);
      const layerOf = async (/** @type {string} */ model) => there.find((/** @type {any} */ one) => one.model_id === model) ?? whileWaking(api.predictLayer(chosen.image, model), (words) => !gone && setWaking(words));
      const first = await layerOf(chosen.first);
      const second = chosen.second === chosen.first ? first : await layerOf(chosen.second);
      if (!gone) setLayers([first, second]);
    };
    predict().catch(fail).finally(() => !gone && setBusy(false));
    return () => {
      gone = true;
    };
  }, [chosen]);
  const image = images.find((one) => one.id === chosen.image);
  const name = (/** @type {any} */ model) => `${backendWord(model.backend)}, ${when(model.created_at)}, step ${model.step}`;
  const choose = (/** @type {'image' | 'first' | 'second'} */ what, /** @type {string} */ title, /** @type {any[]} */ all, /** @type {(one: any) => string} */ named) => html`
    <label class="choice">${title}
      <select value=${chosen[what]} onChange=${(/** @type {any} */ e) => setChosen({ ...chosen, [what]: e.target.value })}>
        ${all.map((one) => html`<option key=${one.id} value=${one.id} selected=${one.id === chosen[what]}>${named(one)}</option>`)}
      </select>
    </label>
  `;
  const score = (/** @type {string} */ model) => models?.find((one) => one.id === model)?.validation?.score;
  const title = (/** @type {number} */ n, /** @type {string} */ model) => html`
    <p class="pane-title"><i class=${n ? 'swatch second' : 'swatch predicted'}></i>${layers[n] ? counted(layers[n].cells, 'cell') : ''}
      ${score(model) > 0 ? ` · score ${score(model).toFixed(2)} on marked cells` : ''}</p>`;
  const pair = [...new Set([chosen.first, chosen.second])].flatMap((one) => models?.filter((model) => model.id === one) ?? []);
  return html`
    <${Header} project=${project} view="compare" />
    ${models && models.length < 1
      ? html`<main class="page"><h1>Compare</h1><p class="note">Train a model first; with two you can compare them here.</p></main>`
      : html`
          <main class="compare">
            <div class="compare-bar">
              ${choose('image', 'Image', images, (one) => one.name)}
              ${choose('first', 'Model A', models ?? [], name)}
              ${choose('second', 'Model B', models ?? [], name)}
              <div class="switch" role="group" aria-label="How to compare">
                <button aria-pressed=${!overlaid} onClick=${() => setOverlaid(false)}>Side by side</button>
                <button aria-pressed=${overlaid} onClick=${() => setOverlaid(true)}>Difference</button>
              </div>
              ${busy && html`<span class="quiet">${waking || 'Predicting ...'}</span>`}
            </div>
            ${pair.length > 0 && html`<${Measured} project=${id} models=${pair} fail=${fail} />`}
            ${image && html`
              <div class="panes-titles">${title(0, chosen.first)}${title(1, chosen.second)}</div>
              <${Panes} key=${`${image.id} ${overlaid}`} image=${image} layers=${layers} overlaid=${overlaid} fail=${fail} />
            `}
          </main>
        `}
  `;
}

/** @param {{image: any, layers: any[], overlaid: boolean, fail: (error: unknown) => void}} properties */
function Panes({ image, layers, overlaid, fail }) {
  const holder = useRef(null);
  useEffect(() => {
    const canvases = [.../** @type {any} */ (holder.current).querySelectorAll('canvas')];
    /** @type {Viewer[]} */
    const viewers = [];
    let moving = false;
    const moved = (/** @type {any} */ view) => {
      if (moving) return;
      moving = true;
      for (const other of viewers) if (other.view !== view) other.set(view);
      moving = false;
    };
    canvases.forEach((canvas, index) => {
      const viewer = new Viewer(canvas, image, { moved });
      viewer.tiles = new ImageTiles(image, firstChannels(image), viewer.redraw, (sentence) => fail(new Error(sentence)));
      const shown = overlaid ? [0, 1] : [index];
      viewer.labels = shown.flatMap((n) =>
        layers[n]
          ? [{ visible: true, tiles: new LabelTiles(image, layers[n].id, labelStyle(n ? SECOND : PREDICTED, { fill: false, background: 'none' }), viewer.redraw) }]
          : [],
      );
      if (overlaid && viewer.labels.length === 2) {
        const [first, second] = /** @type {{tiles: LabelTiles}[]} */ (viewer.labels);
        viewer.labels.unshift({ visible: true, tiles: new DifferenceTiles(first.tiles, second.tiles, viewer.redraw) });
      }
      viewers.push(viewer);
    });
    const stops = canvases.map((canvas, index) => steer(canvas, viewers[index]));
    return () => {
      stops.forEach((stop) => stop());
      viewers.forEach((viewer) => viewer.close());
    };
  }, [image.id, layers, overlaid]);
  const canvas = (/** @type {string} */ name) => html`<canvas tabindex="0" role="img" aria-label=${name}></canvas>`;
  return html`<div class="panes" ref=${holder}>${overlaid ? canvas('Outlines of both models') : html`${canvas('Outlines of model A')}${canvas('Outlines of model B')}`}</div>`;
}

/**
 * Lets mouse and keys move a view.
 * @param {HTMLCanvasElement} canvas
 * @param {Viewer} viewer
 * @returns {() => void}
 */
function steer(canvas, viewer) {
  /** @type {{x: number, y: number} | null} */
  let last = null;
  const acts = {
    pointerdown: (/** @type {PointerEvent} */ event) => {
      canvas.setPointerCapture(event.pointerId);
      last = { x: event.clientX, y: event.clientY };
    },
    pointermove: (/** @type {PointerEvent} */ event) => {
      if (last) viewer.pan(event.clientX - last.x, event.clientY - last.y);
      if (last) last = { x: event.clientX, y: event.clientY };
    },
    pointerup: () => {
      last = null;
    },
    wheel: (/** @type {WheelEvent} */ event) => {
      event.preventDefault();
      const box = canvas.getBoundingClientRect();
      viewer.zoom(Math.exp(-Math.sign(event.deltaY) * Math.min(Math.abs(event.deltaY), 120) * 0.0022), event.clientX - box.left, event.clientY - box.top);
    },
    keydown: (/** @type {KeyboardEvent} */ event) => {
      const pans = /** @type {Record<string, [number, number]>} */ ({ ArrowLeft: [60, 0], ArrowRight: [-60, 0], ArrowUp: [0, 60], ArrowDown: [0, -60] });
      if (pans[event.key]) viewer.pan(...pans[event.key]);
      else if (event.key === '+' || event.key === '=') viewer.zoom(1.3);
      else if (event.key === '-') viewer.zoom(1 / 1.3);
      else if (event.key === '0') viewer.fit();
      else return;
      event.preventDefault();
    },
  };
  for (const [name, act] of Object.entries(acts)) canvas.addEventListener(name, /** @type {any} */ (act), { passive: false });
  return () => {
    for (const [name, act] of Object.entries(acts)) canvas.removeEventListener(name, /** @type {any} */ (act));
  };
}
