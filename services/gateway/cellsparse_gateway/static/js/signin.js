/** The dialog that asks for a token when the server wants to know who one is. */
import { openSession, signInAddress, waysToSignIn } from './api.js';

/** @type {Promise<void> | null} the dialog that is open */
let open = null;

/**
 * Asks until the server takes a token. All that wait, wait for the same dialog.
 * @param {string} sentence why the server asks
 * @returns {Promise<void>}
 */
export function askForToken(sentence) {
  open ??= ask(sentence).finally(() => {
    open = null;
  });
  return open;
}

/**
 * @param {string} sentence
 * @returns {Promise<void>}
 */
function ask(sentence) {
  const dialog = document.createElement('dialog');
  dialog.id = 'sign-in';
  dialog.setAttribute('aria-labelledby', 'sign-in-title');
  dialog.innerHTML = `
    <form method="dialog">
      <h2 id="sign-in-title">Sign in</h2>
      <p>This server asks for a token. An administrator makes one with <code>cellsparse token create</code>.</p>
      <label>Token <input type="password" name="token" autocomplete="off" spellcheck="false" required maxlength="1000" /></label>
      <p class="fault" role="alert"></p>
      <button type="submit" class="primary">Sign in</button>
      <p class="provider" hidden>or <a></a></p>
    </form>`;
  document.body.append(dialog);
  const field = /** @type {HTMLInputElement} */ (dialog.querySelector('input'));
  const fault = /** @type {HTMLElement} */ (dialog.querySelector('.fault'));
  const form = /** @type {HTMLFormElement} */ (dialog.querySelector('form'));
  // A session that ended says why; who has none yet is told by the paragraph above.
  fault.textContent = /shows none/.test(sentence) ? '' : sentence;
  waysToSignIn().then(({ provider }) => {
    if (!provider) return;
    const link = /** @type {HTMLAnchorElement} */ (dialog.querySelector('.provider a'));
    link.href = signInAddress();
    link.textContent = `sign in at ${provider}`;
    /** @type {HTMLElement} */ (dialog.querySelector('.provider')).hidden = false;
  });
  dialog.addEventListener('cancel', (event) => event.preventDefault());
  dialog.showModal();
  return new Promise((done) => {
    form.addEventListener('submit', async (event) => {
      event.preventDefault();
      try {
        await openSession(field.value.trim());
        dialog.close();
        dialog.remove();
        done();
      } catch (failure) {
        fault.textContent = failure instanceof Error ? failure.message : String(failure);
        field.select();
      }
    });
  });
}
