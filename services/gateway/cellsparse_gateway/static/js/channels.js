/** Channels of images: how they are called, and which ones a training takes. */
import { html } from './html.js';

/** Most image channels that a method's network takes. */
const MOST = /** @type {Record<string, number>} */ ({ cellpose: 2, cellpose_sam: 3, stardist: 16, unet: 16 });
/** The mean of all channels, for a network of one. */
const MEAN = 'mean';
/** Up to so many channels are named one by one. */
const FEW = 4;

/**
 * A channel as requests name it.
 * @param {any} image ProjectImage
 * @param {number} index from 0
 * @returns {string}
 */
export const channelKey = (image, index) => image.channel_names?.[index] ?? String(index);

/**
 * A channel for people: its name, or its number from 1.
 * @param {any} image ProjectImage
 * @param {number} index from 0
 */
export function channelName(image, index) {
  const key = channelKey(image, index);
  return key === String(index) ? `Channel ${index + 1}` : key;
}

/**
 * The channels of an image in a few words; empty if it has one.
 * @param {any} image ProjectImage
 */
export function channelsWord(image) {
  if (image.channels < 2) return '';
  const names = Array.from({ length: image.channels }, (_, index) => channelName(image, index));
  const named = names.length <= FEW && names.some((_, index) => channelKey(image, index) !== String(index));
  return named ? names.join(', ') : `${image.channels} channels`;
}

/**
 * The channels that were chosen, without those that this image does not have or the method does not take.
 * @param {string[] | undefined} chosen in the network's order
 * @param {any} image ProjectImage
 * @param {string} backend
 * @returns {string[]}
 */
export function validChannels(chosen, image, backend) {
  if (chosen?.[0] === MEAN) return [MEAN];
  const there = Array.from({ length: image.channels }, (_, index) => channelKey(image, index));
  return [...new Set(chosen ?? [])].filter((key) => there.includes(key)).slice(0, MOST[backend] ?? 1);
}

/**
 * One list for each channel that the network gets, in its order, and one for a further channel.
 * @param {{image: any, backend: string, chosen: string[], onChange: (chosen: string[]) => void}} properties
 */
export function ChannelChooser({ image, backend, chosen, onChange }) {
  const keys = Array.from({ length: image.channels }, (_, index) => channelKey(image, index));
  const most = Math.min(MOST[backend] ?? 1, keys.length);
  const more = chosen.length > 0 && chosen[0] !== MEAN && chosen.length < most;
  const places = chosen.length ? [...chosen, ...(more ? [''] : [])] : [''];
  const pick = (/** @type {number} */ at, /** @type {string} */ key) => {
    if (key === MEAN) onChange([MEAN]);
    else onChange(key ? [...chosen.slice(0, at), key, ...chosen.slice(at + 1)] : chosen.slice(0, at));
  };
  return html`
    <fieldset class="channel-chooser">
      <legend>Channels that the network gets</legend>
      ${places.map((place, at) => html`
        <select key=${at} aria-label=${`Channel ${at + 1} of the network`} value=${place} onChange=${(/** @type {any} */ e) => pick(at, e.target.value)}>
          <option value="" selected=${!place}>${at ? 'no further channel' : 'as the method does by itself'}</option>
          ${!at && html`<option value=${MEAN} selected=${place === MEAN}>mean of all</option>`}
          ${keys.map((key, index) => (key === place || !chosen.includes(key)) && html`<option key=${key} value=${key} selected=${key === place}>${channelName(image, index)}</option>`)}
        </select>
      `)}
    </fieldset>
  `;
}
