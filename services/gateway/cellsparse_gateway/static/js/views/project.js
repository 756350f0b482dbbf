/** A project's images: thumbnails, counts, and files dropped onto them. */
import * as api from '../api.js';
import { address, query } from '../api.js';
import { channelsWord } from '../channels.js';
import { ALL_GOOD, FaultList, sentencesOf, whyLeftOut } from '../faults.js';
import { html, useEffect, useState } from '../html.js';
import { asksForPart, PartChooser, WHOLE } from '../parts.js';
import { counted } from '../words.js';
import { Header, sure } from './header.js';

/** @param {{project: string, say: (sentence: string) => void, fail: (error: unknown) => void}} properties */
export function ProjectView({ project: id, say, fail }) {
  const [project, setProject] = useState(/** @type {any} */ (null));
  const [images, setImages] = useState(/** @type {any[] | null} */ (null));
  const [sending, setSending] = useState('');
  const [over, setOver] = useState(false);
  const [part, setPart] = useState(WHOLE);
  const [asked, setAsked] = useState(false);
  const [outcome, setOutcome] = useState(ALL_GOOD);
  const load = async () => {
    try {
      const [now, all] = await Promise.all([api.project(id), api.images(id)]);
      setProject(now);
      setImages(all);
      document.title = `${now.name} · Cellsparse`;
    } catch (error) {
      fail(error);
    }
  };
  useEffect(() => {
    load();
  }, [id]);

  /**
   * @param {File[]} files
   * @param {import('../faults.js').Entry[]} leftOut
   */
  const upload = async (files, leftOut) => {
    const failed = [];
    for (const [index, file] of files.entries()) {
      setSending(`${file.name} (${index + 1} of ${files.length})`);
      try {
        await api.uploadImage(id, file, part);
        await load();
      } catch (error) {
        failed.push({ name: file.name, sentences: sentencesOf(error) });
      }
    }
    setSending('');
    setOutcome({ failed, leftOut });
    if (failed.some(({ sentences }) => sentences.some(asksForPart))) setAsked(true);
    if (failed.length === 1) fail(new Error(`${failed[0].name}: ${failed[0].sentences.join(' ')}`));
    else if (failed.length) fail(new Error(`${counted(failed.length, 'file')} were not added; the list says why.`));
  };
  /**
   * @param {FileList} files
   * @param {Set<string>} [folders] names of those that are folders
   */
  const take = (files, folders = new Set()) => {
    const named = [...files].map((file) => ({ file, why: whyLeftOut(file.name, folders.has(file.name)) }));
    const leftOut = named.flatMap(({ file, why }) => (why ? [{ name: file.name, sentences: [`${why}.`] }] : []));
    upload(named.flatMap(({ file, why }) => (why ? [] : [file])), leftOut);
  };
  const drop = (/** @type {DragEvent} */ event) => {
    event.preventDefault();
    setOver(false);
    const given = event.dataTransfer;
    if (!given?.files.length) return;
    const entries = [...given.items].map((item) => item.webkitGetAsEntry?.());
    take(given.files, new Set(entries.flatMap((entry) => (entry?.isDirectory ? [entry.name] : []))));
  };
  const remove = async (/** @type {any} */ image) => {
    if (!sure(`Delete "${image.name}" with its marks?`)) return;
    try {
      await api.deleteImage(image.id);
      say(`"${image.name}" is deleted.`);
      await load();
    } catch (error) {
      fail(error);
    }
  };
  const rename = async () => {
    const name = window.prompt('Name of the project', project.name)?.trim();
    if (!name || name === project.name) return;
    await api.renameProject(id, name).then(load).catch(fail);
  };

  return html`
    <${Header} project=${project} view="project">
      ${project && html`
        <button onClick=${rename}>Rename</button>
        <button onClick=${() => api.download(`/projects/${id}/archive`)}>Save project (zip)</button>
      `}
    <//>
    <main class=${`page drop${over ? ' over' : ''}`} onDragOver=${(/** @type {DragEvent} */ e) => { e.preventDefault(); setOver(true); }}
      onDragLeave=${() => setOver(false)} onDrop=${drop}>
      <label class="drop-target">
        <input type="file" multiple accept=".tif,.tiff,.png,.jpg,.jpeg,.zip,.ozx,.czi,.lif,.nd2" onChange=${(/** @type {any} */ e) => { take(e.target.files); e.target.value = ''; }} />
        <b>${sending ? `Adding ${sending} ...` : 'Drop images here, or click to choose'}</b>
        <span class="quiet">TIFF, OME-TIFF, PNG, JPEG or zipped OME-Zarr: several channels, stacks</span>
      </label>
      <${FaultList} outcome=${outcome} onClose=${() => setOutcome(ALL_GOOD)} />
      <${PartChooser} part=${part} open=${asked} onChange=${setPart} />
      <ul class="gallery" aria-label="Images">
        ${(images ?? []).map((image) => html`
          <li class="thumb" key=${image.id}>
            <a href=${`#/p/${id}/i/${image.id}`}>
              <img src=${address(`/images/${image.id}/thumbnail${query({ size: 256 })}`)} alt="" loading="lazy" />
              <span class="name">${image.name}</span>
              <span class="quiet">${image.cells > 0 ? counted(image.cells, 'cell') : 'no cells yet'} · ${image.width} × ${image.height}${image.planes > 1 ? ` × ${image.planes}` : ''}${channelsWord(image) && ` · ${channelsWord(image)}`}</span>
            </a>
            ${image.cells > 0 && html`<span class="badge" title="Has marked cells">${image.cells}</span>`}
            <button class="icon" aria-label=${`Delete ${image.name}`} title="Delete" onClick=${() => remove(image)}>×</button>
          </li>
        `)}
      </ul>
      ${images?.length === 0 && !sending && html`<p class="note">There is no image yet.</p>`}
    </main>
  `;
}
