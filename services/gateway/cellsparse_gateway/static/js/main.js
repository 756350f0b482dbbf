/** The page: which view a hash shows, and the line that says what happened. */
import { html, render, useCallback, useEffect, useState } from './html.js';
import { onUnknown } from './api.js';
import { askForToken, keepSignedIn } from './signin.js';
import { CanvasView } from './views/canvas.js';
import { CompareView } from './views/compare.js';
import { ModelsView } from './views/models.js';
import { ProjectView } from './views/project.js';
import { ProjectsView } from './views/projects.js';
import { PromptersView } from './views/prompters.js';
import { TrainingsView } from './views/trainings.js';

/** Milliseconds for which a sentence stays. */
const STAYS = 5000;

/**
 * @param {string} hash such as #/p/PROJECT/i/IMAGE
 * @returns {{view: string, project: string, image: string}}
 */
export function route(hash) {
  const [, root = '', project = '', view = '', image = ''] = hash.replace(/^#/, '').split('/');
  if (root === 'prompters') return { view: 'prompters', project: '', image: '' };
  if (root !== 'p' || !project) return { view: 'projects', project: '', image: '' };
  if (view === 'i' && image) return { view: 'canvas', project, image };
  return { view: /^(trainings|compare|models)$/.test(view) ? view : 'project', project, image };
}

function App() {
  const [place, setPlace] = useState(() => route(location.hash));
  const [said, setSaid] = useState({ sentence: '', bad: false, number: 0 });
  useEffect(() => {
    const moved = () => {
      setPlace(route(location.hash));
      setSaid((now) => ({ ...now, sentence: '' }));
    };
    addEventListener('hashchange', moved);
    return () => removeEventListener('hashchange', moved);
  }, []);
  useEffect(() => {
    if (!said.sentence) return undefined;
    const timer = setTimeout(() => setSaid((now) => ({ ...now, sentence: '' })), said.bad ? 2 * STAYS : STAYS);
    return () => clearTimeout(timer);
  }, [said]);
  const say = useCallback((/** @type {string} */ sentence) => setSaid((now) => ({ sentence, bad: false, number: now.number + 1 })), []);
  const fail = useCallback((/** @type {unknown} */ error) => {
    const sentence = error instanceof Error ? error.message : String(error);
    setSaid((now) => ({ sentence, bad: true, number: now.number + 1 }));
  }, []);
  const told = { say, fail };
  const views = {
    projects: () => html`<${ProjectsView} ...${told} />`,
    project: () => html`<${ProjectView} key=${place.project} project=${place.project} ...${told} />`,
    canvas: () => html`<${CanvasView} key=${place.image} project=${place.project} image=${place.image} ...${told} />`,
    trainings: () => html`<${TrainingsView} key=${place.project} project=${place.project} ...${told} />`,
    compare: () => html`<${CompareView} key=${place.project} project=${place.project} ...${told} />`,
    prompters: () => html`<${PromptersView} ...${told} />`,
    models: () => html`<${ModelsView} key=${place.project} project=${place.project} ...${told} />`,
  };
  return html`
    ${views[/** @type {keyof typeof views} */ (place.view)]()}
    <div class=${`said${said.sentence ? ' shown' : ''}${said.bad ? ' bad' : ''}`} role=${said.bad ? 'alert' : 'status'} aria-live=${said.bad ? 'assertive' : 'polite'} id="said">
      ${said.sentence}
    </div>
  `;
}

onUnknown(askForToken);
keepSignedIn();
render(html`<${App} />`, /** @type {HTMLElement} */ (document.getElementById('page')));
