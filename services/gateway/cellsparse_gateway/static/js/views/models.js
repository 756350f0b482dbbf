/** The project's models: their scores, files for other tools. */
import * as api from '../api.js';
import { query } from '../api.js';
import { html, useEffect, useState } from '../html.js';
import { backendWord, when } from '../words.js';
import { Header } from './header.js';

/** Files that each backend writes. */
const FORMATS = {
  stardist: { native: 'StarDist folder', saved_model: 'Fiji and QuPath', bioimageio: 'BioImage.IO' },
  cellpose: { native: 'Cellpose file', onnx: 'ONNX', torchscript: 'TorchScript', bioimageio: 'BioImage.IO' },
  unet: { native: 'ELEPHANT file', onnx: 'ONNX', torchscript: 'TorchScript', bioimageio: 'BioImage.IO' },
};

/**
 * @param {string} id of a project
 * @returns {Promise<any[]>} the models of its runs, newest first
 */
export async function projectModels(id) {
  const [runs, models] = await Promise.all([api.projectRuns(id), api.models()]);
  const own = new Set(runs.map((run) => run.id));
  return models.filter((model) => own.has(model.id));
}

/** @param {{project: string, fail: (error: unknown) => void}} properties */
export function ModelsView({ project: id, fail }) {
  const [project, setProject] = useState(/** @type {any} */ (null));
  const [models, setModels] = useState(/** @type {any[] | null} */ (null));
  useEffect(() => {
    api.project(id).then(setProject).catch(fail);
    projectModels(id).then(setModels).catch(fail);
  }, [id]);
  const formats = (/** @type {any} */ model) => Object.entries(/** @type {any} */ (FORMATS)[model.backend] ?? { native: 'File' });
  return html`
    <${Header} project=${project} view="models" />
    <main class="page">
      <h1>Models</h1>
      ${models?.length === 0 && html`<p class="note">There is no model yet. Open an image, mark a few cells and press Train.</p>`}
      <ul class="rows">
        ${(models ?? []).map((model) => html`
          <li class="model" key=${model.id}>
            <div>
              <b>${backendWord(model.backend)}</b> <span class="quiet">${model.name} · ${when(model.created_at)} · step ${model.step}</span>
              ${model.validation?.score > 0 && html`<p class="note">Score on marked cells: ${model.validation.score.toFixed(2)}</p>`}
              ${model.initial_model && html`<p class="note">${model.step ? 'Trained on from an earlier model.' : 'Training on found nothing better: these are the earlier model\'s weights.'}</p>`}
            </div>
            <div class="model-actions">
              ${formats(model).map(([format, title]) => html`<button onClick=${() => api.download(`/models/${model.id}/export${query({ format })}`)}>${title}</button>`)}
            </div>
          </li>
        `)}
      </ul>
      <p class="note more-models"><a class="file-link" href="#/prompters">Models for clicks</a> are what proposes outlines, Segment Anything among them.</p>
    </main>
  `;
}
