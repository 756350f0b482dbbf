/** Large bodies, sent with progress, which fetch does not tell. */
import { address, ApiError } from './api.js';

/**
 * @param {string} path below /api/v1
 * @param {Blob} body
 * @param {{progress: (share: number) => void, signal: AbortSignal}} options
 * @returns {Promise<any>} the answer's document
 */
export function upload(path, body, { progress, signal }) {
  return new Promise((done, failed) => {
    const request = new XMLHttpRequest();
    const abort = () => request.abort();
    request.open('POST', address(path));
    request.setRequestHeader('Content-Type', 'application/zip');
    request.upload.onprogress = ({ loaded, total }) => progress(total ? loaded / total : 1);
    request.onerror = () => failed(new ApiError(0, 'The connection broke before the server had answered. Is it running?'));
    request.onabort = () => failed(new DOMException('Given up.', 'AbortError'));
    request.onloadend = () => signal.removeEventListener('abort', abort);
    request.onload = () => {
      const said = documentOf(request.responseText);
      if (request.status >= 200 && request.status < 300) done(said);
      else failed(new ApiError(request.status, said.detail || said.title || `The server answered ${request.status}.`));
    };
    signal.addEventListener('abort', abort);
    if (signal.aborted) failed(new DOMException('Given up.', 'AbortError'));
    else request.send(body);
  });
}

/** @param {string} text */
function documentOf(text) {
  try {
    return JSON.parse(text) ?? {};
  } catch {
    return {};
  }
}
