/** Signing in: renews the session where an identity provider does that, else a dialog asks for a token. */
import { openSession, pause, renewSession, sessionNow, signInAddress, waysToSignIn } from './api.js';

/** A session is renewed so long before its end, milliseconds; a short one after half of its time. */
const AHEAD = 60_000;
const LONGEST_PAUSE = 3_600_000;

/** @type {Promise<void> | null} the dialog that is open */
let open = null;

/**
 * Asks until the server takes a token. All that wait, wait for the same dialog.
 * @param {string} sentence why the server asks
 * @returns {Promise<void>}
 */
export function askForToken(sentence) {
  open ??= renewed(null)
    .then((done) => (done ? undefined : ask(sentence).then(keepSignedIn)))
    .finally(() => {
      open = null;
    });
  return open;
}

/** Renews the session before it ends, again and again, as long as the identity provider does. */
export function keepSignedIn() {
  const work = async () => {
    for (let who = await sessionNow(); who?.expires_at; who = await sessionNow()) {
      const left = Date.parse(who.expires_at) - Date.now();
      const wait = Math.max(left - AHEAD, left / 2, 1000);
      await pause(Math.min(wait, LONGEST_PAUSE));
      if (wait <= LONGEST_PAUSE && !(await renewed(who.expires_at))) return;
    }
  };
  work();
}

/**
 * Renews the session, in one tab at a time: what a provider gives for the next renewal is often good for one only.
 * @param {string | null} end when the session ended that this tab knows; null: there is none
 * @returns {Promise<boolean>} whether there is a session that lasts longer
 */
async function renewed(end) {
  const renew = async () => {
    const who = await sessionNow();
    if (who && who.expires_at !== end) return true; // another tab has done it
    try {
      await renewSession();
      return true;
    } catch {
      return false;
    }
  };
  return navigator.locks ? navigator.locks.request('cellsparse-session', renew) : renew();
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
