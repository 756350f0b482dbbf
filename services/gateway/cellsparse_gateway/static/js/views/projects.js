/** The start page: all projects, a new one, the sample. */
import * as api from '../api.js';
import { html, useEffect, useState } from '../html.js';
import { counted, when } from '../words.js';
import { Header, sure } from './header.js';

/** @param {{say: (sentence: string) => void, fail: (error: unknown) => void}} properties */
export function ProjectsView({ say, fail }) {
  const [projects, setProjects] = useState(/** @type {any[] | null} */ (null));
  const [busy, setBusy] = useState(false);
  const [name, setName] = useState('');
  const load = () => api.projects().then(setProjects).catch(fail);
  useEffect(() => {
    document.title = 'Cellsparse';
    load();
  }, []);

  /** @param {() => Promise<void>} act */
  const doing = async (act) => {
    setBusy(true);
    try {
      await act();
    } catch (error) {
      fail(error);
    } finally {
      setBusy(false);
    }
  };
  const sample = () =>
    doing(async () => {
      const project = await api.createSample();
      const [image] = await api.images(project.id);
      location.hash = image ? `#/p/${project.id}/i/${image.id}` : `#/p/${project.id}`;
    });
  const create = (/** @type {Event} */ event) => {
    event.preventDefault();
    return doing(async () => {
      const project = await api.createProject(name.trim() || 'My project');
      location.hash = `#/p/${project.id}`;
    });
  };
  const open = (/** @type {any} */ event) =>
    doing(async () => {
      const [file] = event.target.files;
      if (!file) return;
      const project = await api.importProject(file);
      location.hash = `#/p/${project.id}`;
    });
  const remove = (/** @type {any} */ project) =>
    sure(`Delete the project "${project.name}" with its images and marks? Its models stay.`) &&
    doing(async () => {
      await api.deleteProject(project.id);
      say(`"${project.name}" is deleted.`);
      await load();
    });

  return html`
    <${Header}><a class="tab" href="#/prompters">Models for clicks</a><//>
    <main class="start">
      <section class="hero">
        <h1>Mark a few cells.<br />Train. See. Correct.</h1>
        <p class="lead">Five clicks and a stroke of background are enough for a first model of your own.</p>
        <div class="hero-actions">
          <button class="primary big" onClick=${sample} disabled=${busy}>Try the sample</button>
          <form class="inline" onSubmit=${create}>
            <input type="text" aria-label="Name of the new project" placeholder="Name of a new project" maxlength="100" value=${name}
              onInput=${(/** @type {any} */ e) => setName(e.target.value)} />
            <button class="big" disabled=${busy}>New project</button>
          </form>
        </div>
        <label class="file-link">Open a project file (zip)<input type="file" accept=".zip" onChange=${open} disabled=${busy} /></label>
      </section>
      <section aria-label="Projects">
        ${projects === null && html`<p class="note">Loading ...</p>`}
        ${projects?.length === 0 && html`<p class="note">There is no project yet.</p>`}
        <ul class="cards">
          ${(projects ?? []).map((project) => html`
            <li class="card" key=${project.id}>
              <a href=${`#/p/${project.id}`}>
                <h2>${project.name}</h2>
                <p class="quiet">${counted(project.images, 'image')} · ${counted(project.cells, 'cell')} · ${counted(project.runs, 'training')}</p>
                <p class="quiet">${when(project.created_at)}</p>
              </a>
              <button class="icon" aria-label=${`Delete ${project.name}`} title="Delete" onClick=${() => remove(project)}>×</button>
            </li>
          `)}
        </ul>
      </section>
    </main>
  `;
}
