/** The bar at the top: where one is and what else there is. */
import { closeSession, session } from '../api.js';
import { html, useEffect, useState } from '../html.js';

/** @type {Promise<any> | null} asked once for all views */
let caller = null;

/** The one who is signed in, with the way out; nothing where nobody needs to sign in. */
function SignedIn() {
  const [who, setWho] = useState(/** @type {any} */ (null));
  useEffect(() => {
    caller ??= session();
    caller.then(setWho, () => {
      caller = null;
    });
  }, []);
  if (!who?.authentication) return null;
  const leave = async () => {
    await closeSession();
    location.reload();
  };
  return html`<span class="who" title=${who.role}>${who.name}</span><button class="quiet" id="sign-out" onClick=${leave}>Sign out</button>`;
}

/**
 * @param {{project?: any, view?: string, image?: any, children?: any}} properties
 */
export function Header({ project, view = '', image, children }) {
  const base = project ? `#/p/${project.id}` : '#/';
  const tab = (/** @type {string} */ name, /** @type {string} */ title, /** @type {string} */ to) =>
    html`<a href=${to} class=${view === name ? 'tab here' : 'tab'} aria-current=${view === name ? 'page' : undefined}>${title}</a>`;
  return html`
    <header class="bar">
      <a class="brand" href="#/" aria-label="Cellsparse: all projects"><img src="/static/icon.svg" alt="" width="22" height="22" /><span>Cellsparse</span></a>
      ${project && html`
        <span class="crumb" aria-hidden="true">/</span><a class="crumb-link" href=${base}>${project.name}</a>
        ${image && html`<span class="crumb" aria-hidden="true">/</span><span class="crumb-link now">${image.name}</span>`}
        <nav aria-label="Project">
          ${tab('project', 'Images', base)} ${tab('trainings', 'Trainings', `${base}/trainings`)}
          ${tab('compare', 'Compare', `${base}/compare`)} ${tab('models', 'Models', `${base}/models`)}
        </nav>
      `}
      <span class="grow"></span>
      ${children}
      <${SignedIn} />
    </header>
  `;
}

/**
 * Asks before something is gone.
 * @param {string} sentence
 */
export const sure = (sentence) => window.confirm(sentence);
