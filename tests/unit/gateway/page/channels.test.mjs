import assert from 'node:assert/strict';
import test from 'node:test';
import { load } from './support.mjs';

globalThis.localStorage = { getItem: () => null, setItem: () => {} };
globalThis.location = { href: 'http://localhost/' };
globalThis.document = {};

const { channelName, channelsWord, validChannels } = await load('channels.js');
const { request } = await load('train.js');

const named = { channels: 3, channel_names: ['DAPI', 'GFP', '2'] };
const nameless = { channels: 2 };

test('channels are called by their names, else by numbers from 1', () => {
  assert.deepEqual([0, 1, 2].map((index) => channelName(named, index)), ['DAPI', 'GFP', 'Channel 3']);
  assert.equal(channelName(nameless, 1), 'Channel 2');
  assert.equal(channelsWord(named), 'DAPI, GFP, Channel 3');
  assert.equal(channelsWord({ channels: 2, channel_names: ['0', '1'] }), '2 channels');
  assert.equal(channelsWord({ channels: 1 }), '');
});

test('channels that the image lacks, or that are too many for the method, are not asked for', () => {
  assert.deepEqual(validChannels(['GFP', 'RFP', 'DAPI', 'GFP'], named, 'cellpose'), ['GFP', 'DAPI']);
  assert.deepEqual(validChannels(['2', 'GFP', 'DAPI'], named, 'cellpose'), ['2', 'GFP']);
  assert.deepEqual(validChannels(['1'], nameless, 'unet'), ['1']);
  assert.deepEqual(validChannels(['mean'], named, 'stardist'), ['mean']);
  assert.deepEqual(validChannels(undefined, named, 'stardist'), []);
});

test('a training asks for the channels that were chosen, unless the settings name some', () => {
  const choice = { backend: 'unet', preset: 'fast', expert: '', from: 'fresh', channels: ['GFP', 'DAPI'] };
  assert.deepEqual(request(choice, [], []).settings, { channels: ['GFP', 'DAPI'] });
  assert.deepEqual(request({ ...choice, expert: 'channels=DAPI' }, [], []).settings, { channels: ['DAPI'] });
  assert.deepEqual(request({ ...choice, channels: [] }, [], []).settings, {});
});
