/** The gateway's REST interface. Every failure is an ApiError with one sentence for people. */

const BASE = '/api/v1';
/** Pauses between the tries of a reading call, milliseconds. */
const PAUSES = [300, 1000, 2500];

/** A call that was not answered with success. */
export class ApiError extends Error {
  /**
   * @param {number} status HTTP status; 0: no answer at all.
   * @param {string} sentence
   * @param {{field: string, detail: string}[]} [errors] each fault, if the server told several
   */
  constructor(status, sentence, errors = []) {
    super(sentence);
    this.status = status;
    this.errors = errors;
  }

  /** Whether the same call may succeed later. */
  get passing() {
    return this.status === 0 || this.status === 429 || this.status === 502 || this.status === 503 || this.status === 504;
  }
}

/** @type {((sentence: string) => Promise<void>) | null} */
let signIn = null;

/**
 * What to do when the server asks who one is: calls wait for it, and are made again.
 * @param {(sentence: string) => Promise<void>} how
 */
export function onUnknown(how) {
  signIn = how;
}

/**
 * Signs in: the server keeps the token in a cookie that no script can read.
 * @param {string} token
 */
export async function openSession(token) {
  const headers = { 'Content-Type': 'application/json' };
  const answer = await fetch(address('/session'), { method: 'POST', headers, body: JSON.stringify({ token }) });
  if (!answer.ok) throw await problem(answer);
}

/**
 * How one can sign in; a server that does not say takes tokens.
 * @returns {Promise<{ provider: string }>} the provider's name, empty without one
 */
export async function waysToSignIn() {
  try {
    const answer = await fetch(address('/session/ways'));
    return answer.ok ? await answer.json() : { provider: '' };
  } catch {
    return { provider: '' };
  }
}

/** Where signing in at the provider begins: a page, not a call. */
export const signInAddress = () => address('/session/oidc');

/** Lets the identity provider renew a session that it opened. */
export async function renewSession() {
  const answer = await fetch(address('/session/oidc/renew'), { method: 'POST' });
  if (!answer.ok) throw await problem(answer);
}

/** @returns {Promise<any>} who is signed in, null if nobody is; nobody is asked to sign in */
export async function sessionNow() {
  try {
    const answer = await fetch(address('/session'));
    return answer.ok ? await answer.json() : null;
  } catch {
    return null;
  }
}

/** Who is signed in; `authentication` is missing where nobody needs to. */
export const session = () => get('/session');
export const closeSession = () => call('DELETE', '/session');

/** @param {number} ms */
export const pause = (ms) => new Promise((done) => setTimeout(done, ms));

/** @param {Record<string, string|number|undefined|null>} values */
export function query(values) {
  const kept = Object.entries(values).filter(([, value]) => value !== undefined && value !== null && value !== '');
  return kept.length ? `?${new URLSearchParams(kept.map(([name, value]) => [name, String(value)]))}` : '';
}

/** @param {string} path below /api/v1 */
export const address = (path) => BASE + path;

/**
 * @param {Response} answer
 * @returns {Promise<ApiError>}
 */
async function problem(answer) {
  const said = await answer.json().catch(() => ({}));
  const detail = typeof said.detail === 'string' ? said.detail : '';
  const errors = Array.isArray(said.errors) ? said.errors : [];
  return new ApiError(answer.status, detail || said.title || `The server answered ${answer.status}.`, errors);
}

/**
 * @param {string} method
 * @param {string} path
 * @param {{json?: unknown, body?: BodyInit, signal?: AbortSignal, headers?: Record<string, string>}} [options]
 * @returns {Promise<Response>}
 */
export async function call(method, path, options = {}) {
  const headers = { ...options.headers };
  let body = options.body;
  if (options.json !== undefined) {
    headers['Content-Type'] = 'application/json';
    body = JSON.stringify(options.json);
  } else if (body !== undefined && !headers['Content-Type']) {
    headers['Content-Type'] = 'application/octet-stream';
  }
  const tries = method === 'GET' ? PAUSES.length + 1 : 1;
  for (let turn = 1; ; turn += 1) {
    let error;
    try {
      const answer = await fetch(address(path), { method, headers, body, signal: options.signal });
      if (answer.ok || answer.status === 304) return answer;
      error = await problem(answer);
      if (error.status === 401 && signIn) {
        await signIn(error.message);
        turn -= 1;
        continue;
      }
    } catch (failure) {
      if (failure instanceof DOMException && failure.name === 'AbortError') throw failure;
      error = new ApiError(0, 'The server does not answer. Is it running?');
    }
    if (turn >= tries || !error.passing) throw error;
    await pause(PAUSES[turn - 1]);
  }
}

/**
 * @param {string} path
 * @param {AbortSignal} [signal]
 * @returns {Promise<any>}
 */
export const get = async (path, signal) => (await call('GET', path, { signal })).json();

/**
 * @param {string} path
 * @param {unknown} [json]
 * @param {AbortSignal} [signal]
 * @returns {Promise<any>}
 */
export const post = async (path, json = {}, signal) => (await call('POST', path, { json, signal })).json();

/**
 * All pages of a list.
 * @param {string} path
 * @param {string} name plural, the list's name in the answer
 * @returns {Promise<any[]>}
 */
export async function list(path, name) {
  const found = [];
  let token = '';
  do {
    const page = await get(path + query({ page_size: 200, page_token: token }));
    found.push(...(page[name] ?? []));
    token = page.next_page_token ?? '';
  } while (token);
  return found;
}

export const status = () => get('/status');
/** @returns {Promise<any[]>} the newest models of a backend */
export const newestModels = async (/** @type {string} */ backend) => (await get(`/models${query({ backend, page_size: 50 })}`)).models ?? [];
export const projects = () => list('/projects', 'projects');
export const project = (/** @type {string} */ id) => get(`/projects/${id}`);
export const createProject = (/** @type {string} */ name) => post('/projects', { name });
export const createSample = () => post('/projects/sample');
export const importProject = async (/** @type {Blob} */ file) =>
  (await call('POST', '/projects/archive', { body: file })).json();
export const renameProject = (/** @type {string} */ id, /** @type {string} */ name) =>
  call('PATCH', `/projects/${id}`, { json: { name } });
export const deleteProject = (/** @type {string} */ id) => call('DELETE', `/projects/${id}`);
export const images = (/** @type {string} */ id) => list(`/projects/${id}/images`, 'images');
export const image = (/** @type {string} */ id) => get(`/images/${id}`);
export const deleteImage = (/** @type {string} */ id) => call('DELETE', `/images/${id}`);
/** @typedef {{axes: string, series: string, time: string, z: string}} Part what is taken of an image file; empty: as it is */
export const uploadImage = async (/** @type {string} */ id, /** @type {File} */ file, /** @type {Part} */ part) =>
  (await call('POST', `/projects/${id}/images${query({ name: file.name, ...part })}`, { body: file })).json();
export const importLabels = async (/** @type {string} */ id, /** @type {File} */ file, /** @type {string} */ kind) =>
  (await call('POST', `/images/${id}/labels${query({ kind })}`, { body: file })).json();
export const cells = (/** @type {string} */ id, layer = '') => get(`/images/${id}/cells${query({ layer })}`);
export const layers = async (/** @type {string} */ id) => (await get(`/images/${id}/layers`)).layers ?? [];
export const predictLayer = (/** @type {string} */ id, /** @type {string} */ model) =>
  post(`/images/${id}/layers`, { model_id: model });
export const edit = (/** @type {string} */ id, /** @type {unknown} */ body) => post(`/images/${id}/edits`, body);
export const undo = (/** @type {string} */ id, /** @type {string} */ author) => post(`/images/${id}/undo`, { author });
export const redo = (/** @type {string} */ id, /** @type {string} */ author) => post(`/images/${id}/redo`, { author });
export const prompt = (/** @type {string} */ id, /** @type {unknown} */ body, /** @type {AbortSignal} */ signal) =>
  post(`/images/${id}/prompt`, body, signal);
export const suggest = (/** @type {string} */ id, /** @type {unknown} */ body) => post(`/projects/${id}/suggestions`, body);
export const prompters = () => list('/prompters', 'prompters');
export const checkPrompter = (/** @type {string} */ name) => call('POST', `/prompters/${name}/check`);
export const deletePrompter = (/** @type {string} */ name) => call('DELETE', `/prompters/${name}`);
export const train = (/** @type {string} */ id, /** @type {unknown} */ body) => post(`/projects/${id}/train`, body);
export const projectRuns = (/** @type {string} */ id) => list(`/projects/${id}/runs`, 'runs');
export const run = (/** @type {string} */ id) => get(`/runs/${id}`);
export const cancelRun = (/** @type {string} */ id) => post(`/runs/${id}/cancel`);
export const models = () => list('/models', 'models');
export const createDataset = (/** @type {string} */ id, /** @type {unknown} */ body) =>
  post(`/projects/${id}/dataset`, body);
export const deleteDataset = (/** @type {string} */ id) => call('DELETE', `/datasets/${id}`);
export const evaluate = (/** @type {unknown} */ body) => post('/evaluations', body);

/**
 * Lets the browser save an answer under the name that the server gives.
 * @param {string} path
 */
export function download(path) {
  const link = document.createElement('a');
  link.href = address(path);
  link.download = '';
  document.body.append(link);
  link.click();
  link.remove();
}
