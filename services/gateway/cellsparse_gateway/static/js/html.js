/** Preact with htm: markup as tagged templates, without a build step. */
import { h, render } from '../vendor/preact/preact.mjs';
import htm from '../vendor/htm/htm.mjs';

export const html = htm.bind(h);
export { render };
export { useState, useEffect, useLayoutEffect, useRef, useMemo, useCallback, useReducer } from '../vendor/preact/hooks.mjs';
