/** One open image: what is shown, which tool is in hand, what mouse and keys do. The view around it only displays. */
import * as api from './api.js';
import { CELL, labelStyle, PREDICTED } from './colours.js';
import { above, openCells, tileOrder } from './confidence.js';
import { Edits } from './store/edits.js';
import { isFree } from './store/strokes.js';
import { drawSuggestion, isOn, middle, viewOf } from './suggestions.js';
import { click, TOOLS } from './tools/all.js';
import { CHANNEL_COLOURS } from './viewer/contrast.js';
import { LabelTiles } from './viewer/labels.js';
import { FIRST_CELL } from './viewer/outlines.js';
import { tilesIn } from './viewer/pyramid.js';
import { ImageTiles } from './viewer/tiles.js';
import { Viewer } from './viewer/view.js';
import { counted } from './words.js';

/** Milliseconds between looks for changes that others made. */
const FOLLOW_EVERY = 4000;
/** Cells that are accepted at once at most. */
const MOST_ACCEPTED = 1000;
/** Up to so many tiles of an image are loaded to count the cells that can be accepted. */
const FEW_TILES = 16;
/** Cells that one edit makes at most. */
const BATCH = 200;

/**
 * @typedef {import('./tools/mask.js').Point} Point
 * @typedef {import('./viewer/contrast.js').ChannelStyle} ChannelStyle
 */

/**
 * How an image's channels are shown at first.
 * @param {any} image ProjectImage
 * @returns {ChannelStyle[]}
 */
export function firstChannels(image) {
  const alone = image.channels === 1;
  const colours = image.channels === 3 && image.dtype === 'uint8' ? ['#ff0000', '#00ff00', '#0000ff'] : CHANNEL_COLOURS;
  const full = image.dtype === 'uint8' ? 255 : 65535;
  return Array.from({ length: image.channels }, (_, index) => ({
    on: true,
    colour: alone ? '#ffffff' : colours[index % colours.length],
    low: image.contrast[index]?.low ?? 0,
    high: image.contrast[index]?.high ?? full,
    gamma: 1,
  }));
}

/**
 * The pixels of a predicted cell, whose tiles are here.
 * @param {LabelTiles} tiles
 * @param {any} cell
 * @param {number} plane
 */
function maskOf(tiles, { x, y, width, height, label }, plane) {
  const rect = { x, y, width, height };
  return { ...rect, data: Uint8Array.from(tiles.read(rect, plane), (value) => Number(value === label)) };
}

export class Stage {
  tool = TOOLS[0];
  brushRadius = 8;
  alt = false;
  /** @type {Point | null} where the mouse or the keyboard's cursor is, in the image */
  pointer = null;
  byKeyboard = false;
  /** @type {any} the Layer that is shown */
  layer = null;
  /** @type {LabelTiles | null} */
  prediction = null;
  layerVisible = true;
  annotationVisible = true;
  fill = true;
  /** @type {'hatch' | 'tint' | 'none'} */
  ground = 'hatch';
  /** @type {import('./suggestions.js').Suggestion | null} what is suggested in this image now */
  suggestion = null;
  closed = false;
  /** Whether the background around a suggested cell is accepted with it. */
  ring = true;
  /** Whether background was painted. */
  painted = false;
  /** @type {any[] | null} cells of the layer */
  #layerCells = null;
  #space = false;
  /** @type {{x: number, y: number} | null} */
  #dragged = null;
  #closers = /** @type {(() => void)[]} */ ([]);
  #cursorMark = /** @type {any} */ (null);

  /**
   * @param {HTMLCanvasElement} canvas
   * @param {any} image ProjectImage
   * @param {{changed: () => void, say: (sentence: string) => void, fail: (error: unknown) => void, help: () => void,
   *   next: () => void, train: () => void, suggest: () => void, nextSuggestion: () => boolean}} told
   */
  constructor(canvas, image, told) {
    this.canvas = canvas;
    this.image = image;
    this.told = told;
    this.channels = firstChannels(image);
    this.viewer = new Viewer(canvas, image, { draw: (context) => this.#draw(context), moved: () => told.changed() });
    this.viewer.tiles = new ImageTiles(image, this.channels, this.viewer.redraw, (sentence) => this.fail(new Error(sentence)));
    this.annotation = new LabelTiles(image, '', labelStyle(CELL), this.viewer.redraw);
    this.edits = new Edits(image, this.annotation, {
      changed: () => this.#count(),
      saved: (revision) => this.#saved(revision),
      failed: (sentence) => this.fail(new Error(sentence)),
    });
    this.brushRadius = Math.max(2, Math.round((image.diameter || Math.min(image.width, image.height) / 25) / 4));
    this.#count();
    this.#arrange();
    this.#listen();
  }

  /** Says how many strokes are not saved yet, also to whoever works on the page from outside. */
  #count() {
    if (this.edits) this.canvas.dataset.unsaved = String(this.edits.pending.length);
    this.told.changed();
  }

  get plane() {
    return this.viewer.plane;
  }

  /** The channel that proposals are made on: the only one that is shown, or all. */
  get promptChannel() {
    const shown = this.channels.flatMap(({ on }, index) => (on ? [index] : []));
    return shown.length === 1 && this.channels.length > 1 ? shown[0] : null;
  }

  /** @param {string} sentence */
  say(sentence) {
    this.told.say(sentence);
  }

  /** @param {unknown} error */
  fail(error) {
    this.told.fail(error);
  }

  #arrange() {
    const annotation = { tiles: this.annotation, visible: this.annotationVisible };
    const prediction = this.prediction ? [{ tiles: this.prediction, visible: this.layerVisible }] : [];
    this.viewer.labels = [...prediction, annotation];
    this.viewer.redraw();
  }

  /** Shows labels as the switches say. */
  restyle() {
    this.annotation.restyle(labelStyle(CELL, { fill: this.fill, background: this.ground }));
    this.prediction?.restyle(labelStyle(PREDICTED, { fill: false }));
    this.#arrange();
    this.told.changed();
  }

  /** @param {ChannelStyle[]} channels */
  setChannels(channels) {
    this.channels = channels;
    this.viewer.tiles?.restyle(channels);
    this.told.changed();
  }

  /** @param {number} plane */
  setPlane(plane) {
    this.viewer.plane = Math.min(Math.max(plane, 0), this.image.planes - 1);
    click.cancel();
    this.viewer.redraw();
    this.told.changed();
  }

  /** @param {import('./tools/stroke.js').Tool} tool */
  setTool(tool) {
    if (this.tool.active()) this.tool.cancel();
    click.cancel();
    this.tool = tool;
    this.viewer.redraw();
    this.told.changed();
    this.say(`${tool.label}. ${tool.hint}`);
  }

  /** @param {any} layer Layer or null */
  setLayer(layer) {
    const same = layer && this.layer?.id === layer.id;
    if (same && this.layer.revision === layer.revision && this.layer.step === layer.step) return;
    const old = this.prediction;
    this.layer = layer;
    this.#layerCells = null;
    this.prediction = layer ? new LabelTiles(this.image, layer.id, labelStyle(PREDICTED, { fill: false }), this.viewer.redraw) : null;
    old?.close();
    click.cancel();
    this.#arrange();
    this.told.changed();
  }

  /** @param {boolean} visible */
  showLayer(visible) {
    this.layerVisible = visible;
    this.#arrange();
    this.told.changed();
  }

  /** @param {boolean} visible */
  showAnnotation(visible) {
    this.annotationVisible = visible;
    this.#arrange();
    this.told.changed();
  }

  /**
   * @param {Omit<import('./store/strokes.js').Stroke, 'plane'>} stroke
   * @param {string} sentence
   */
  edit(stroke, sentence) {
    if (stroke.kind === 'background' || stroke.kind === 'reject') this.painted = true;
    this.edits.add({ ...stroke, plane: this.plane });
    this.say(sentence);
  }

  /** @param {number} revision */
  async #saved(revision) {
    if (this.edits.pending.length > 1) return;
    try {
      const fresh = await api.image(this.image.id);
      if (fresh.revision < revision) return;
      Object.assign(this.image, { cells: fresh.cells, labelled_pixels: fresh.labelled_pixels, diameter: fresh.diameter, revision: fresh.revision });
      this.told.changed();
    } catch {
      // The counts are shown again with the next stroke.
    }
  }

  /** @param {'undo' | 'redo'} what */
  async step(what) {
    try {
      const done = await this.edits.step(what);
      const nothing = what === 'undo' ? 'There is nothing to undo.' : 'There is nothing to redo.';
      this.say(done ? (what === 'undo' ? 'Undone.' : 'Redone.') : nothing);
    } catch (error) {
      this.fail(error);
    }
  }

  /** Takes the proposal or the predicted cell under the pointer. */
  async accept() {
    if (!this.pointer) return;
    if (this.#aimed) {
      this.acceptSuggestion();
      return;
    }
    if (this.tool === click) return click.accept(this, this.pointer);
    const mask = this.prediction ? await this.prediction.cellAt(...this.pointer, this.plane) : null;
    if (mask) this.edit({ kind: 'cell', masks: [mask] }, 'Cell added.');
    else this.say('There is no predicted cell under the cursor.');
  }

  /** Deletes the cell under the pointer; a predicted one is marked as background. */
  async remove() {
    if (!this.pointer) return;
    const [x, y] = this.pointer;
    try {
      await this.annotation.ensure({ x: Math.floor(x), y: Math.floor(y), width: 1, height: 1 }, this.plane);
      const target = this.annotation.at(x, y, this.plane);
      const point = { x: Math.floor(x), y: Math.floor(y), width: 1, height: 1, data: Uint8Array.of(1) };
      if (target >= FIRST_CELL) {
        this.edit({ kind: 'delete', masks: [point], target }, 'Cell deleted.');
        return;
      }
      await this.reject();
    } catch (error) {
      this.fail(error);
    }
  }

  /** "Not a cell": the predicted or annotated cell under the pointer becomes background. */
  async reject() {
    if (!this.pointer) return;
    if (this.#aimed) {
      this.rejectSuggestion();
      return;
    }
    const [x, y] = this.pointer;
    const target = this.annotation.at(x, y, this.plane);
    if (target >= FIRST_CELL) {
      const point = { x: Math.floor(x), y: Math.floor(y), width: 1, height: 1, data: Uint8Array.of(1) };
      this.edit({ kind: 'reject', masks: [point], target }, 'Marked as background.');
      return;
    }
    const mask = this.prediction ? await this.prediction.cellAt(x, y, this.plane) : null;
    click.cancel();
    if (mask) this.edit({ kind: 'reject', masks: [mask] }, 'Not a cell: marked as background.');
    else this.say('There is no cell under the cursor.');
  }

  /**
   * Shows a suggestion, or none, with the keyboard's cursor on it.
   * @param {import('./suggestions.js').Suggestion | null} suggestion
   */
  propose(suggestion) {
    if (this.closed) return;
    if (this.viewer.width <= 1) {
      // The canvas has no size before its first layout.
      requestAnimationFrame(() => this.propose(suggestion));
      return;
    }
    this.tool.cancel();
    click.cancel();
    this.suggestion = suggestion;
    if (suggestion) {
      this.setPlane(suggestion.plane);
      this.viewer.set(viewOf(suggestion, this.viewer.width, this.viewer.height));
      this.byKeyboard = true;
      this.pointer = middle(suggestion);
      this.say(suggestion.reason);
    }
    this.viewer.redraw();
    this.told.changed();
  }

  /** @param {boolean} on */
  setRing(on) {
    this.ring = on;
    this.viewer.redraw();
    this.told.changed();
  }

  /** The suggestion, if the cursor is on it. */
  get #aimed() {
    const here = this.suggestion?.plane === this.plane;
    return this.suggestion && here && this.pointer && isOn(this.suggestion, this.pointer) ? this.suggestion : null;
  }

  /**
   * @param {import('./suggestions.js').Decision} decision
   */
  #decide(decision) {
    if (this.suggestion) this.suggestion.decision = decision;
    this.suggestion = null;
    click.cancel();
    this.viewer.redraw();
    this.told.changed();
  }

  /** What is drawn is right. */
  acceptSuggestion() {
    const { suggestion } = this;
    if (!suggestion) return;
    this.setPlane(suggestion.plane);
    const { cell, ground } = suggestion;
    if (cell) this.edit({ kind: 'suggested', masks: this.ring && ground.data.includes(1) ? [cell, ground] : [cell] }, 'Cell added. Tab: next suggestion.');
    else this.edit({ kind: 'background', masks: [ground] }, 'Background marked. Tab: next suggestion.');
    if (cell && this.ring) this.painted = true;
    this.#decide('accepted');
  }

  /** It is a cell, but of another shape: the outline tool draws it. */
  redrawSuggestion() {
    if (!this.suggestion) return;
    this.setPlane(this.suggestion.plane);
    this.#decide('redrawn');
    this.setTool(TOOLS.find(({ id }) => id === 'outline') ?? this.tool);
    this.say('Draw around the cell. Tab: next suggestion.');
  }

  /** It is not what it was suggested for: a cell is background. A spot of background that is none is left alone. */
  rejectSuggestion() {
    const { suggestion } = this;
    if (!suggestion) return;
    this.setPlane(suggestion.plane);
    if (suggestion.cell) this.edit({ kind: 'reject', masks: [suggestion.cell] }, 'Not a cell: marked as background. Tab: next suggestion.');
    else this.say('Left alone: draw the cell, or Tab for the next suggestion.');
    this.#decide('rejected');
  }

  async #cells() {
    this.#layerCells ??= this.layer ? ((await api.cells(this.image.id, this.layer.id)).cells ?? []) : [];
    return /** @type {any[]} */ (this.#layerCells).filter((cell) => this.plane >= cell.plane && this.plane < cell.plane + Math.max(cell.planes, 1));
  }

  /** Takes all predicted cells in sight that lie where nothing is annotated. */
  async acceptVisible() {
    if (!this.prediction) {
      this.say('There is no prediction yet: train first.');
      return;
    }
    try {
      const { x, y, width, height } = this.viewer.rect;
      const visible = (await this.#cells()).filter((cell) => {
        const [mx, my] = [cell.x + cell.width / 2, cell.y + cell.height / 2];
        return mx >= x && my >= y && mx < x + width && my < y + height;
      });
      if (visible.length > MOST_ACCEPTED) {
        this.say(`${visible.length} cells are in sight: zoom in until there are at most ${MOST_ACCEPTED}.`);
        return;
      }
      await this.#take(visible);
    } catch (error) {
      this.fail(error);
    }
  }

  /** Takes all predicted cells of this plane from a confidence up that lie where nothing is annotated. */
  async acceptAbove(/** @type {number} */ least) {
    try {
      await this.#take(above((await this.scored()).open, least));
    } catch (error) {
      this.fail(error);
    }
  }

  /** The predicted cells of this plane: all, and those that can be accepted; of a large image as far as boxes tell. */
  async scored() {
    const all = await this.#cells();
    const { plane, prediction, annotation } = this;
    const whole = { x: 0, y: 0, width: this.image.width, height: this.image.height };
    if (all.length && prediction && tilesIn(this.image, 0, whole).length <= FEW_TILES) {
      await Promise.all([prediction.ensure(whole, plane), annotation.ensure(whole, plane)]);
      const open = all.filter((cell) => {
        const mask = maskOf(prediction, cell, plane);
        return isFree(mask, annotation.read(mask, plane));
      });
      return { all, open, exact: true };
    }
    const on = (/** @type {any} */ cell) => plane >= cell.plane && plane < cell.plane + Math.max(cell.planes, 1);
    const marked = this.image.cells && all.length ? ((await api.cells(this.image.id)).cells ?? []).filter(on) : [];
    const free = (/** @type {any} */ cell) => annotation.at(cell.x + cell.width / 2, cell.y + cell.height / 2, plane) === 0;
    return { all, open: openCells(all, marked).filter(free), exact: false };
  }

  /**
   * Makes predicted cells marked ones.
   * @param {any[]} cells
   */
  async #take(cells) {
    const { plane, prediction } = this;
    if (!prediction) return;
    const sorted = [...cells].sort((a, b) => tileOrder(a) - tileOrder(b));
    const before = this.image.cells;
    for (let from = 0; from < sorted.length && this.prediction === prediction; from += BATCH) {
      const masks = [];
      for (const cell of sorted.slice(from, from + BATCH)) {
        await prediction.ensure(cell, plane);
        masks.push(maskOf(prediction, cell, plane));
      }
      this.edits.add({ kind: 'accept', masks, plane });
      this.say(sorted.length > BATCH ? `Accepting: ${from} of ${sorted.length} ...` : 'Accepting ...');
      await this.edits.settled();
    }
    const { cells: now } = await api.image(this.image.id);
    this.say(`${counted(now - before, 'cell')} accepted.`);
  }

  /** Goes to the next predicted cell that is not annotated; without one, to the next image. */
  async next() {
    const cells = await this.#cells().catch(() => []);
    const open = cells.filter((cell) => {
      const at = this.annotation.at(cell.x + cell.width / 2, cell.y + cell.height / 2, this.plane);
      return at === 0;
    });
    if (!open.length) {
      this.told.next();
      return;
    }
    const [px, py] = this.pointer ?? [0, 0];
    const after = (/** @type {any} */ cell) => cell.y + cell.height / 2 > py + 0.5 || (Math.abs(cell.y + cell.height / 2 - py) <= 0.5 && cell.x + cell.width / 2 > px + 0.5);
    const sorted = open.sort((a, b) => a.y + a.height / 2 - b.y - b.height / 2 || a.x - b.x);
    const chosen = sorted.find(after) ?? sorted[0];
    this.byKeyboard = true;
    this.pointer = [chosen.x + chosen.width / 2, chosen.y + chosen.height / 2];
    this.#keepInSight();
    if (this.tool === click) click.hover?.(this, this.pointer);
    this.say(`${open.length} predicted cells are left. A accepts this one, X says that it is no cell.`);
  }

  // Mouse --------------------------------------------------------------------------------------------------------

  #listen() {
    const { canvas } = this;
    /** @param {EventTarget} target @param {string} name @param {(event: any) => void} act @param {any} [options] */
    const on = (target, name, act, options) => {
      target.addEventListener(name, act, options);
      this.#closers.push(() => target.removeEventListener(name, act, options));
    };
    on(canvas, 'pointerdown', (event) => this.#down(event));
    on(canvas, 'pointermove', (event) => this.#move(event));
    on(canvas, 'pointerup', (event) => this.#up(event));
    on(canvas, 'pointercancel', (event) => this.#up(event));
    on(canvas, 'pointerleave', () => this.#leave());
    on(canvas, 'wheel', (event) => this.#wheel(event), { passive: false });
    on(canvas, 'contextmenu', (event) => event.preventDefault());
    on(window, 'keydown', (event) => this.#key(event));
    on(window, 'keyup', (event) => this.#keyUp(event));
    on(window, 'blur', () => this.#release());
    // A stroke that is under way when the page goes is kept as it is.
    on(window, 'pagehide', () => this.#commit());
    const timer = setInterval(() => {
      if (!document.hidden) this.edits.follow().catch(() => {});
    }, FOLLOW_EVERY);
    this.#closers.push(() => clearInterval(timer));
  }

  /** @param {PointerEvent | WheelEvent} event @returns {[number, number]} */
  #at(event) {
    const box = this.canvas.getBoundingClientRect();
    return [event.clientX - box.left, event.clientY - box.top];
  }

  /** @param {PointerEvent} event */
  #down(event) {
    this.canvas.focus();
    this.canvas.setPointerCapture(event.pointerId);
    const [x, y] = this.#at(event);
    this.byKeyboard = false;
    this.pointer = this.viewer.toImage(x, y);
    if (this.#space || event.button === 1 || event.button === 2) {
      this.#dragged = { x: event.clientX, y: event.clientY };
    } else if (event.button === 0) {
      this.alt = event.altKey;
      this.tool.begin(this, this.pointer, event.altKey);
    }
    this.viewer.redraw();
  }

  /** @param {PointerEvent} event */
  #move(event) {
    if (this.#dragged) {
      this.viewer.pan(event.clientX - this.#dragged.x, event.clientY - this.#dragged.y);
      this.#dragged = { x: event.clientX, y: event.clientY };
      return;
    }
    const all = event.getCoalescedEvents?.() ?? [];
    for (const part of all.length ? all : [event]) {
      this.pointer = this.viewer.toImage(...this.#at(part));
      if (this.tool.active() && !this.byKeyboard) this.tool.extend(this, this.pointer);
    }
    this.byKeyboard = false;
    this.alt = event.altKey;
    if (this.#aimed && !this.tool.active()) click.cancel();
    else if (!this.tool.active() && this.pointer) this.tool.hover?.(this, this.pointer);
    this.viewer.redraw();
    this.told.changed();
  }

  /** @param {PointerEvent} event */
  #up(event) {
    if (this.#dragged) {
      this.#dragged = null;
      return;
    }
    if (event.button !== 0 && event.type === 'pointerup') return;
    this.#end();
  }

  #end() {
    try {
      if (this.tool === click && this.#aimed) this.acceptSuggestion();
      else this.tool.end(this);
    } catch (error) {
      this.fail(error);
    }
    this.viewer.redraw();
  }

  #leave() {
    if (this.tool.active() || this.byKeyboard) return;
    this.pointer = null;
    click.cancel();
    this.viewer.redraw();
    this.told.changed();
  }

  /** @param {WheelEvent} event */
  #wheel(event) {
    event.preventDefault();
    const turn = event.deltaY || event.deltaX;
    if (event.shiftKey) {
      if (this.tool === click) click.step(this, turn < 0 ? 1 : -1);
      else this.sizeBrush(turn < 0 ? 1.15 : 1 / 1.15);
      return;
    }
    this.viewer.zoom(Math.exp(-Math.sign(turn) * Math.min(Math.abs(turn), 120) * 0.0022), ...this.#at(event));
  }

  /** @param {number} factor */
  sizeBrush(factor) {
    const next = factor > 1 ? Math.max(this.brushRadius * factor, this.brushRadius + 0.5) : Math.min(this.brushRadius * factor, this.brushRadius - 0.5);
    this.brushRadius = Math.min(Math.max(next, 0.5), 200);
    this.viewer.redraw();
    this.told.changed();
  }

  #commit() {
    if (this.tool.active()) this.#end();
  }

  #release() {
    this.#space = false;
    this.alt = false;
    this.canvas.classList.remove('panning');
  }

  // Keys ---------------------------------------------------------------------------------------------------------

  /** @param {KeyboardEvent} event */
  #key(event) {
    const target = /** @type {HTMLElement} */ (event.target);
    if (event.ctrlKey || event.metaKey) {
      if (event.key.toLowerCase() === 'z') {
        event.preventDefault();
        this.step(event.shiftKey ? 'redo' : 'undo');
      }
      return;
    }
    if (/^(INPUT|SELECT|TEXTAREA)$/.test(target.tagName) || document.querySelector('dialog[open]')) return;
    if (event.key === 'Alt') this.alt = true;
    const onCanvas = target === this.canvas || target === document.body;
    if (!onCanvas && /^(Enter| |Tab|Arrow.*)$/.test(event.key)) return;
    if (this.#act(event, onCanvas)) event.preventDefault();
  }

  /**
   * @param {KeyboardEvent} event
   * @param {boolean} onCanvas
   * @returns {boolean} whether the key meant something
   */
  #act(event, onCanvas) {
    const tool = TOOLS.find(({ key }) => key === event.key.toLowerCase());
    if (tool && !event.shiftKey) this.setTool(tool);
    else if (event.key.startsWith('Arrow')) this.#arrow(event);
    else {
      switch (event.key) {
        case ' ':
          this.#space = true;
          this.canvas.classList.add('panning');
          break;
        case 'Enter':
          this.#enter(event.altKey);
          break;
        case 'a':
          this.accept();
          break;
        case 'A':
          this.acceptVisible();
          break;
        case 'x':
        case 'Delete':
        case 'Backspace':
          this.remove();
          break;
        case 'n':
          this.reject();
          break;
        case 'r':
          this.redrawSuggestion();
          break;
        case 's':
          this.told.suggest();
          break;
        case 'z':
          this.step('undo');
          break;
        case 'Z':
          this.step('redo');
          break;
        case 'Tab':
          if (!onCanvas || event.shiftKey) return false;
          if (this.told.nextSuggestion()) break;
          if (!this.layer) return false;
          this.next();
          break;
        case 'Escape':
          this.tool.cancel();
          click.cancel();
          break;
        case '[':
          this.sizeBrush(1 / 1.25);
          break;
        case ']':
          this.sizeBrush(1.25);
          break;
        case 'PageUp':
          click.step(this, 1);
          break;
        case 'PageDown':
          click.step(this, -1);
          break;
        case '+':
        case '=':
          this.#zoomKey(1.3);
          break;
        case '-':
          this.#zoomKey(1 / 1.3);
          break;
        case '0':
          this.viewer.fit();
          break;
        case ',':
          this.setPlane(this.plane - 1);
          break;
        case '.':
          this.setPlane(this.plane + 1);
          break;
        case 'h':
          this.showAnnotation(!this.annotationVisible);
          break;
        case 'p':
          this.showLayer(!this.layerVisible);
          break;
        case 'b':
          this.ground = this.ground === 'hatch' ? 'tint' : this.ground === 'tint' ? 'none' : 'hatch';
          this.restyle();
          break;
        case 't':
          this.told.train();
          break;
        case '?':
          this.told.help();
          break;
        default:
          return false;
      }
    }
    this.viewer.redraw();
    return true;
  }

  /** @param {number} factor */
  #zoomKey(factor) {
    if (this.pointer) this.viewer.zoom(factor, ...this.viewer.toScreen(...this.pointer));
    else this.viewer.zoom(factor);
  }

  /** @param {KeyboardEvent} event */
  #keyUp(event) {
    if (event.key === ' ' || event.key === 'Alt') this.#release();
  }

  /** The keyboard's cursor moves by eight screen pixels, with Shift by one image pixel, with Alt by 64. */
  #arrow(/** @type {KeyboardEvent} */ event) {
    const { scale } = this.viewer.view;
    const step = event.shiftKey ? 1 : (event.altKey ? 64 : 8) / scale;
    const [dx, dy] = /** @type {Record<string, number[]>} */ ({
      ArrowLeft: [-step, 0], ArrowRight: [step, 0], ArrowUp: [0, -step], ArrowDown: [0, step],
    })[event.key];
    const start = this.pointer ?? this.viewer.toImage(this.viewer.width / 2, this.viewer.height / 2);
    const first = !this.pointer;
    this.byKeyboard = true;
    this.pointer = first ? start : [
      Math.min(Math.max(start[0] + dx, 0), this.image.width - 0.01),
      Math.min(Math.max(start[1] + dy, 0), this.image.height - 0.01),
    ];
    this.#keepInSight();
    if (this.tool.active()) this.tool.extend(this, this.pointer);
    else this.tool.hover?.(this, this.pointer);
    clearTimeout(this.#cursorMark);
    this.#cursorMark = setTimeout(() => this.#tellCursor(), 400);
    this.told.changed();
  }

  #tellCursor() {
    if (!this.pointer) return;
    const [x, y] = this.pointer.map(Math.floor);
    const label = this.annotation.at(x, y, this.plane);
    this.say(`Column ${x}, row ${y}: ${label >= FIRST_CELL ? 'a cell' : label ? 'background' : 'not labelled'}.`);
  }

  #keepInSight() {
    if (!this.pointer) return;
    const [x, y] = this.viewer.toScreen(...this.pointer);
    const margin = 40;
    const dx = x < margin ? margin - x : x > this.viewer.width - margin ? this.viewer.width - margin - x : 0;
    const dy = y < margin ? margin - y : y > this.viewer.height - margin ? this.viewer.height - margin - y : 0;
    if (dx || dy) this.viewer.pan(dx, dy);
    this.viewer.redraw();
  }

  /** Enter clicks; with a drawing tool it begins and ends the stroke. @param {boolean} alt */
  #enter(alt) {
    if (!this.pointer) {
      this.say('Move the cursor with the arrow keys first.');
      return;
    }
    if (this.tool === click) this.accept();
    else if (this.tool.active()) this.#end();
    else {
      this.byKeyboard = true;
      this.tool.begin(this, this.pointer, alt);
      this.say('The stroke has begun: move with the arrow keys, end with Enter.');
    }
  }

  /** @param {CanvasRenderingContext2D} context */
  #draw(context) {
    if (this.suggestion?.plane === this.plane) drawSuggestion(this.suggestion, context, this.viewer.view, this.ring);
    if (this.annotationVisible || this.tool === click) this.tool.draw(this, context);
    if (!this.byKeyboard || !this.pointer) return;
    const [x, y] = this.viewer.toScreen(...this.pointer);
    for (const [width, colour] of [[4, '#000'], [2, '#fff']]) {
      context.lineWidth = Number(width);
      context.strokeStyle = String(colour);
      context.beginPath();
      context.moveTo(x - 14, y);
      context.lineTo(x - 4, y);
      context.moveTo(x + 4, y);
      context.lineTo(x + 14, y);
      context.moveTo(x, y - 14);
      context.lineTo(x, y - 4);
      context.moveTo(x, y + 4);
      context.lineTo(x, y + 14);
      context.stroke();
    }
  }

  close() {
    this.closed = true;
    this.#commit();
    for (const close of this.#closers) close();
    click.cancel();
    this.edits.close();
    this.viewer.close();
  }
}
