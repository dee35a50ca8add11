// Common to all views: decoding, sample-synchronous playback, and pictures to scale.
// Python joins this file and one view into a single module; nothing is downloaded.

const FADE = 0.01; // seconds of a crossfade: switching, seeking, stopping, the seam of a loop

// FLAC from the kernel (DataView) -> AudioBuffer at its own rate.
async function decode(view, rate) {
  const bytes = view.buffer.slice(view.byteOffset, view.byteOffset + view.byteLength);
  return new OfflineAudioContext(2, 1, rate).decodeAudioData(bytes);
}

// The seconds [from, to) of a buffer as a loop without a click: its last samples fade into those before its first.
function loopOf(context, buffer, from, to) {
  const { numberOfChannels: channels, sampleRate: rate, length } = buffer;
  const first = Math.round(from * rate);
  const count = Math.max(1, Math.min(Math.round(to * rate), length) - first);
  const fade = Math.min(Math.round(FADE * rate), Math.floor(count / 4));
  const loop = context.createBuffer(channels, count, rate);
  for (let channel = 0; channel < channels; channel++) {
    const samples = buffer.getChannelData(channel);
    const copy = loop.getChannelData(channel);
    copy.set(samples.subarray(first, first + count));
    for (let i = 0; i < fade; i++) {
      const weight = (i + 1) / fade;
      const before = first - fade + i;
      copy[count - fade + i] *= 1 - weight;
      if (before >= 0) copy[count - fade + i] += weight * samples[before];
    }
  }
  return loop;
}

const MOST_CHANNELS = 32; // of one AudioBuffer, and of one splitter

// Stereo signals in few buffers of many channels: the signals of one buffer start and stay synchronous.
function joined(context, buffers) {
  const groups = [];
  for (let first = 0; first < buffers.length; first += MOST_CHANNELS / 2) {
    const members = buffers.slice(first, first + MOST_CHANNELS / 2);
    const length = Math.max(...members.map((buffer) => buffer.length));
    const group = context.createBuffer(2 * members.length, length, members[0].sampleRate);
    members.forEach((buffer, i) => {
      group.copyToChannel(buffer.getChannelData(0), 2 * i);
      group.copyToChannel(buffer.getChannelData(buffer.numberOfChannels - 1), 2 * i + 1);
    });
    groups.push(group);
  }
  return groups;
}

// Stereo signals of one length, all playing at all times: switching only changes gains.
class Deck {
  constructor(buffers, rate, changed, shortest = 0.05) {
    Object.assign(this, { buffers, rate, changed, shortest }); // shortest loop in seconds
    this.duration = Math.max(...buffers.map((buffer) => buffer.duration));
    this.gains = buffers.map(() => 0);
    this.region = null; // [from, to] in seconds
    this.looped = true;
    this.resting = 0; // position while stopped
    this.pass = null; // the playing nodes
  }

  get playing() {
    return this.pass !== null;
  }

  get span() {
    return this.region ?? [0, this.duration];
  }

  position() {
    if (!this.pass) return this.resting;
    const [from, to] = this.pass.span;
    const heard = this.context.currentTime - this.pass.when - (this.context.outputLatency || 0);
    const at = this.pass.offset + Math.max(heard, 0);
    return this.pass.looped ? from + (at % (to - from)) : Math.min(from + at, to);
  }

  async play() {
    // not earlier: browsers allow audio only after a click or a key
    this.context ??= new AudioContext({ sampleRate: this.rate, latencyHint: "interactive" });
    document.dispatchEvent(new CustomEvent("listening-plays", { detail: this }));
    if (this.context.state !== "running") await this.context.resume();
    this.start(this.resting);
    this.changed();
  }

  start(at) {
    this.stop();
    const span = this.looped ? this.span : [0, this.duration];
    const offset = at >= span[0] && at < span[1] - 1e-3 ? at - span[0] : 0;
    const buffers = this.heardBuffers(span);
    const master = new GainNode(this.context, { gain: 0 });
    const gains = this.gains.map((gain) => new GainNode(this.context, { gain, channelCount: 2, channelCountMode: "explicit" }));
    const sources = buffers.map((buffer, group) => {
      const source = new AudioBufferSourceNode(this.context, { buffer, loop: this.looped });
      const splitter = new ChannelSplitterNode(this.context, { numberOfOutputs: buffer.numberOfChannels });
      source.connect(splitter);
      for (let i = 0; i < buffer.numberOfChannels / 2; i++) {
        const merger = new ChannelMergerNode(this.context, { numberOfInputs: 2 });
        splitter.connect(merger, 2 * i, 0);
        splitter.connect(merger, 2 * i + 1, 1);
        merger.connect(gains[(group * MOST_CHANNELS) / 2 + i]).connect(master);
      }
      return source;
    });
    master.connect(this.context.destination);
    const when = this.context.currentTime + 0.02 * sources.length;
    for (const source of sources) source.start(when, offset);
    master.gain.setValueAtTime(0, when).linearRampToValueAtTime(1, when + FADE);
    const pass = { span, offset, when, master, gains, sources, looped: this.looped };
    sources[0].onended = () => this.pass === pass && this.rest(0);
    this.pass = pass;
  }

  heardBuffers(span) {
    this.groups ??= joined(this.context, this.buffers);
    if (!this.looped) return this.groups;
    if (this.loops?.span.join() !== span.join())
      this.loops = { span, buffers: this.groups.map((group) => loopOf(this.context, group, ...span)) };
    return this.loops.buffers;
  }

  stop() {
    if (!this.pass) return;
    const { master, sources } = this.pass;
    this.pass = null;
    ramp(this.context, master.gain, 0);
    for (const source of sources) source.stop(this.context.currentTime + 2 * FADE);
    sources[0].addEventListener("ended", () => master.disconnect());
  }

  rest(at) {
    this.stop();
    this.resting = at;
    this.changed();
  }

  pause() {
    this.rest(this.position());
  }

  toggle() {
    return this.playing ? this.pause() : this.play();
  }

  seek(at) {
    const [from, to] = this.looped ? this.span : [0, this.duration];
    this.resting = Math.min(Math.max(at, from), Math.max(to - 1e-3, from));
    if (this.playing) this.start(this.resting);
    this.changed();
  }

  loop(looped, region = this.region) {
    const at = this.position();
    Object.assign(this, { looped, region });
    this.seek(at);
  }

  // Loop between two times (s), in either order; returns whether the loop is long enough.
  choose(from, to) {
    const [low, high] = [Math.max(Math.min(from, to), 0), Math.min(Math.max(from, to), this.duration)];
    if (high - low < this.shortest) return false;
    this.loop(true, [low, high]);
    return true;
  }

  hear(gains) {
    this.gains = gains;
    this.pass?.gains.forEach((node, i) => ramp(this.context, node.gain, gains[i]));
    this.changed();
  }

  close() {
    this.stop();
    this.context?.close();
  }
}

function ramp(context, parameter, value) {
  const now = context.currentTime;
  const current = parameter.value;
  parameter.cancelScheduledValues(now);
  parameter.setValueAtTime(current, now);
  parameter.linearRampToValueAtTime(value, now + FADE);
}

// One player sounds at a time on a page.
function takesTurns(deck) {
  const listener = (event) => event.detail !== deck && deck.playing && deck.pause();
  document.addEventListener("listening-plays", listener);
  return () => document.removeEventListener("listening-plays", listener);
}

// --- pictures --------------------------------------------------------------------------------------------------------

const LOWEST_HZ = 40; // of a spectrogram
const GUTTER = 46; // pixels left of a picture for its axis
const FOOT = 16; // and below it

function steps(span, most) {
  const rough = span / Math.max(most, 1);
  const unit = 10 ** Math.floor(Math.log10(rough));
  return [1, 2, 5, 10].map((k) => k * unit).find((step) => step >= rough);
}

// A canvas of the given size in CSS pixels, sharp on dense screens.
function sized(canvas, width, height) {
  const dense = window.devicePixelRatio || 1;
  Object.assign(canvas, { width: Math.round(width * dense), height: Math.round(height * dense) });
  const pen = canvas.getContext("2d");
  pen.scale(dense, dense);
  pen.clearRect(0, 0, width, height);
  const style = getComputedStyle(canvas);
  Object.assign(pen, { fillStyle: style.color, strokeStyle: style.color, font: `10px ${style.fontFamily}` });
  return pen;
}

function peakOf(buffer) {
  let peak = 0;
  for (let channel = 0; channel < buffer.numberOfChannels; channel++) {
    const samples = buffer.getChannelData(channel);
    for (let i = 0; i < samples.length; i++) peak = Math.max(peak, Math.abs(samples[i]));
  }
  return peak;
}

// Waveform over `width` pixels at the common scale `peak`, with its amplitude axis.
function drawWave(canvas, buffer, width, height, peak) {
  const pen = sized(canvas, width, height);
  const [inner, middle] = [width - GUTTER, height / 2];
  const [left, right] = [buffer.getChannelData(0), buffer.getChannelData(buffer.numberOfChannels - 1)];
  pen.textAlign = "right";
  pen.textBaseline = "middle";
  pen.fillText("0", GUTTER - 5, middle);
  pen.globalAlpha = 0.75;
  for (let x = 0; x < inner; x++) {
    const [from, to] = [x, x + 1].map((place) => Math.floor((place / inner) * buffer.length));
    let [low, high] = [0, 0];
    for (let i = from; i < Math.max(to, from + 1); i++) {
      const value = (left[i] + right[i]) / 2;
      low = Math.min(low, value);
      high = Math.max(high, value);
    }
    const scale = (middle - 1) / peak;
    pen.fillRect(GUTTER + x, middle - high * scale, 1, Math.max((high - low) * scale, 1));
  }
}

// A spectrogram's picture with axes in Hz (logarithmic, up to half the rate) and s from `start` on.
function drawSpectrogram(canvas, buffer, picture, width, height, start) {
  const pen = sized(canvas, width, height);
  const [inner, tall] = [width - GUTTER, height - FOOT];
  pen.drawImage(picture, GUTTER, 0, inner, tall);
  const top = buffer.sampleRate / 2;
  pen.textAlign = "right";
  pen.textBaseline = "middle";
  for (const hertz of [100, 1000, 10000].filter((value) => value < top)) {
    const y = tall * (1 - Math.log(hertz / LOWEST_HZ) / Math.log(top / LOWEST_HZ));
    pen.fillText(hertz < 1000 ? `${hertz} Hz` : `${hertz / 1000} kHz`, GUTTER - 5, y);
    pen.fillRect(GUTTER - 3, y, 3, 1);
  }
  pen.textAlign = "center";
  pen.textBaseline = "top";
  const step = steps(buffer.duration, inner / 55);
  for (let at = Math.ceil(start / step) * step; at <= start + buffer.duration + 1e-9; at += step) {
    const x = GUTTER + ((at - start) / buffer.duration) * inner;
    pen.fillRect(Math.min(x, width - 1), tall, 1, 3);
    pen.fillText(`${+at.toFixed(3)} s`, Math.min(x, width - 12), tall + 4);
  }
}

// --- pages -----------------------------------------------------------------------------------------------------------

// An element with properties, attributes (`aria-*`, `data-*`, `role`) and children.
function make(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name in element && !name.includes("-")) element[name] = value;
    else element.setAttribute(name, value);
  }
  element.append(...children);
  return element;
}

// Run a callback once per frame while the element is on the page.
function everyFrame(callback) {
  let request = requestAnimationFrame(function frame() {
    callback();
    request = requestAnimationFrame(frame);
  });
  return () => cancelAnimationFrame(request);
}

// A view handles arrows, space and digits before the notebook does; fields keep their keys.
function listensTo(root, keys) {
  root.setAttribute("data-lm-suppress-shortcuts", "true");
  root.addEventListener("keydown", (event) => {
    event.stopPropagation();
    const field = event.target.matches("input:not([type=range], [type=radio]), select, textarea");
    const pressed = event.key === " " && event.target.matches("button"); // focused by Tab alone, see below
    if (field || pressed || event.ctrlKey || event.metaKey || event.altKey) return;
    const action = keys(event);
    if (!action) return;
    event.preventDefault();
    action();
  });
  root.addEventListener("mousedown", (event) => {
    if (!event.target.closest("button")) return;
    event.preventDefault(); // a clicked button does not take the focus, and with it the space bar
    root.focus({ preventScroll: true });
  });
}

// Keys of all views with a deck.
function playbackKey(key, deck) {
  if (key === " ") return () => deck.toggle();
  if (key === "Escape") return () => deck.loop(deck.looped, null);
  if (key === ",") return () => deck.choose(deck.position(), deck.span[1]);
  if (key === ".") return () => deck.choose(deck.span[0], deck.position());
  const step = { ArrowLeft: -1, ArrowRight: 1 }[key];
  return step && (() => deck.seek(deck.position() + step));
}

// Canvases over time with loop region and playhead: a drag selects a region, a click seeks.
function timeline(deck, ...canvases) {
  const [marked, playhead] = ["region", "playhead"].map((className) => make("div", { className }));
  const element = make("div", { className: "picture" }, ...canvases, marked, playhead);
  const across = (at) => `calc(${GUTTER}px + (100% - ${GUTTER}px) * ${at / deck.duration})`;
  const second = (event) => {
    const box = element.getBoundingClientRect();
    return ((event.clientX - box.left - GUTTER) / (box.width - GUTTER)) * deck.duration;
  };
  let from = null;
  element.addEventListener("pointerdown", (event) => {
    from = second(event);
    element.setPointerCapture(event.pointerId);
  });
  element.addEventListener("pointermove", (event) => from !== null && deck.choose(from, second(event)));
  element.addEventListener("pointerup", (event) => {
    if (from !== null && !deck.choose(from, second(event))) deck.seek(from);
    from = null;
  });
  element.addEventListener("pointercancel", () => (from = null));
  const mark = () => {
    const [low, high] = deck.span;
    marked.hidden = !deck.region;
    Object.assign(marked.style, { left: across(low), width: `calc(${across(high)} - ${across(low)})` });
  };
  return { element, mark, move: (at) => (playhead.style.left = across(at)) };
}
