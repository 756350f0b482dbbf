/** What stands beside the canvas: tools, how things are shown, files. */
import * as api from '../api.js';
import { query } from '../api.js';
import { channelKey, channelName } from '../channels.js';
import { html, useState } from '../html.js';
import { Icon } from '../icons.js';
import { paint } from '../viewer/painter.js';
import { tilesIn } from '../viewer/pyramid.js';
import { tileAddress } from '../viewer/tiles.js';
import { TOOLS } from '../tools/all.js';

/** @typedef {import('../stage.js').Stage} Stage */

/** @param {{stage: Stage, onHelp: () => void}} properties */
export function ToolRail({ stage, onHelp }) {
  return html`
    <div class="rail" role="toolbar" aria-label="Tools" aria-orientation="vertical">
      ${TOOLS.map((tool) => html`
        <button key=${tool.id} id=${`tool-${tool.id}`} data-tour=${`tool-${tool.id}`} class=${stage.tool === tool ? 'tool here' : 'tool'} aria-pressed=${stage.tool === tool}
          title=${`${tool.hint} (${tool.key.toUpperCase()})`} onClick=${() => { stage.setTool(tool); stage.canvas.focus(); }}>
          <${Icon} name=${tool.id} /><span>${tool.label}</span><kbd aria-hidden="true">${tool.key.toUpperCase()}</kbd>
        </button>
      `)}
      <label class="size" title="Size of the brush ([ and ])">Size
        <input type="range" min="0" max="1" step="0.01" aria-label="Size of the brush" value=${Math.log(stage.brushRadius / 0.5) / Math.log(400)}
          onInput=${(/** @type {any} */ e) => stage.sizeBrush((0.5 * 400 ** Number(e.target.value)) / stage.brushRadius)} />
      </label>
      <div class="pair">
        <button title="Undo (Z)" aria-label="Undo" onClick=${() => stage.step('undo')}><${Icon} name="undo" /></button>
        <button title="Redo (Shift Z)" aria-label="Redo" onClick=${() => stage.step('redo')}><${Icon} name="redo" /></button>
      </div>
      <div class="pair">
        <button title="Whole image (0)" aria-label="Whole image" onClick=${() => stage.viewer.fit()}><${Icon} name="fit" /></button>
        <button title="Keys (?)" aria-label="Keys" id="help" onClick=${onHelp}><${Icon} name="help" /></button>
      </div>
    </div>
  `;
}

/** @param {{stage: Stage}} properties */
export function ShowPanel({ stage }) {
  const { image, channels } = stage;
  const limit = image.dtype === 'uint8' ? 255 : 65535;
  const top = Math.min(limit, Math.max(...channels.map(({ high }) => high), ...image.contrast.map((/** @type {any} */ { high }) => high)) * 2);
  const set = (/** @type {number} */ index, /** @type {Partial<import('../viewer/contrast.js').ChannelStyle>} */ part) =>
    stage.setChannels(channels.map((channel, at) => (at === index ? { ...channel, ...part } : channel)));
  const auto = async (/** @type {number} */ index) => {
    const level = Math.max(0, image.levels - 1);
    const [place] = tilesIn(image, level, { x: 0, y: 0, width: image.width, height: image.height });
    const job = { url: tileAddress(image, place, stage.plane, index), dtype: image.dtype };
    await paint('range', job).then((range) => set(index, { ...range, gamma: 1 })).catch((error) => stage.fail(error));
  };
  const number = (/** @type {any} */ event) => Number(event.target.value);
  const of = (/** @type {number} */ index) => (channelKey(image, index) === String(index) ? `channel ${index + 1}` : channelName(image, index));
  return html`
    <details class="panel" open>
      <summary>View</summary>
      ${image.planes > 1 && html`
        <label class="slider">Plane ${stage.plane + 1} of ${image.planes}
          <input type="range" min="0" max=${image.planes - 1} value=${stage.plane} onInput=${(/** @type {any} */ e) => stage.setPlane(number(e))} />
        </label>
      `}
      <div class="checks">
        <label class="check"><input type="checkbox" checked=${stage.annotationVisible} onChange=${(/** @type {any} */ e) => stage.showAnnotation(e.target.checked)} /><i class="swatch cell"></i>Marks</label>
        ${stage.layer && html`<label class="check"><input type="checkbox" checked=${stage.layerVisible} onChange=${(/** @type {any} */ e) => stage.showLayer(e.target.checked)} /><i class="swatch predicted"></i>Prediction</label>`}
        <label class="check"><input type="checkbox" checked=${stage.fill} onChange=${(/** @type {any} */ e) => { stage.fill = e.target.checked; stage.restyle(); }} />Fill</label>
        <label class="check select"><i class="swatch background"></i>Background
          <select aria-label="How background is shown" value=${stage.ground} onChange=${(/** @type {any} */ e) => { stage.ground = e.target.value; stage.restyle(); }}>
            ${['hatch', 'tint', 'none'].map((name) => html`<option value=${name} selected=${stage.ground === name}>${name}</option>`)}
          </select>
        </label>
      </div>
      ${channels.map((channel, index) => html`
        <fieldset class="channel" key=${index}>
          <legend>
            ${channels.length > 1
              ? html`<label class="check"><input type="checkbox" checked=${channel.on} onChange=${(/** @type {any} */ e) => set(index, { on: e.target.checked })} />${channelName(image, index)}</label>`
              : 'Contrast'}
            ${channels.length > 1 && html`<input type="color" aria-label=${`Colour of ${of(index)}`} value=${channel.colour} onInput=${(/** @type {any} */ e) => set(index, { colour: e.target.value })} />`}
            <button class="link" onClick=${() => auto(index)} aria-label=${`Automatic contrast of ${of(index)}`}>Auto</button>
          </legend>
          <label class="slider"><span>Black</span><input type="range" min="0" max=${top} step=${top > 1000 ? 10 : 1} value=${channel.low} onInput=${(/** @type {any} */ e) => set(index, { low: Math.min(number(e), channel.high - 1) })} /></label>
          <label class="slider"><span>White</span><input type="range" min="0" max=${top} step=${top > 1000 ? 10 : 1} value=${channel.high} onInput=${(/** @type {any} */ e) => set(index, { high: Math.max(number(e), channel.low + 1) })} /></label>
          <label class="slider"><span>Gamma</span><input type="range" min="0.3" max="2" step="0.05" value=${channel.gamma} onInput=${(/** @type {any} */ e) => set(index, { gamma: number(e) })} /></label>
        </fieldset>
      `)}
    </details>
  `;
}

/** @param {{stage: Stage}} properties */
export function FilePanel({ stage }) {
  const [kind, setKind] = useState('instances');
  const save = (/** @type {string} */ format, layer = '') => api.download(`/images/${stage.image.id}/labels${query({ format, layer })}`);
  const flat = stage.image.planes > 1 ? [] : [['coco', 'COCO']]; // which holds no stacks
  const formats = [
    ['tiff', 'TIFF'], ['ome-tiff', 'OME-TIFF'], ['ome-zarr', 'OME-Zarr'], ['geojson', 'GeoJSON'], ['roi', 'ImageJ ROI'],
    ['seg', 'Cellpose'], ...flat,
  ];
  const bring = async (/** @type {any} */ event) => {
    const [file] = event.target.files;
    if (!file) return;
    try {
      await api.importLabels(stage.image.id, file, kind);
      await stage.edits.follow();
      stage.say('The labels are added.');
    } catch (error) {
      stage.fail(error);
    }
    event.target.value = '';
  };
  return html`
    <details class="panel">
      <summary>Labels as files</summary>
      <p class="note">Save marks</p>
      <div class="buttons">${formats.map(([format, title]) => html`<button onClick=${() => save(format)}>${title}</button>`)}</div>
      ${stage.layer && html`
        <p class="note">Save prediction</p>
        <div class="buttons">${formats.map(([format, title]) => html`<button onClick=${() => save(format, stage.layer.id)}>${title}</button>`)}</div>
      `}
      <p class="note">Bring marks</p>
      <label>Numbers of the file
        <select value=${kind} onChange=${(/** @type {any} */ e) => setKind(e.target.value)}>
          <option value="instances">-1 open, 0 background, from 1 cells</option>
          <option value="offset_by_one">0 open, 1 background, from 2 cells</option>
          <option value="binary">a mask</option>
        </select>
      </label>
      <label class="file-link">TIFF, PNG, OME-Zarr, Cellpose, GeoJSON, ROI or COCO<input type="file" accept=".tif,.tiff,.png,.geojson,.json,.zip,.ozx,.roi,.npy" onChange=${bring} /></label>
    </details>
  `;
}
