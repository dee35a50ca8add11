// The player: synchronous signals as rows, one audible at a time or mixed.

async function render({ model, el }) {
  const [names, notes, rate, start] = ["names", "notes", "rate", "start"].map((name) => model.get(name));
  const root = make("div", { className: "listening", role: "group", tabIndex: 0, "aria-label": model.get("title") });
  el.append(root);
  const buffers = await Promise.all(model.get("signals").map((view) => decode(view, rate)));
  const pictures = await Promise.all(model.get("pictures").map((view) => createImageBitmap(new Blob([view]))));
  const state = {
    mixed: model.get("mixed"),
    selected: model.get("selected"),
    matched: false,
    solo: names.map(() => false),
    muted: names.map(() => false),
  };
  const deck = new Deck(buffers, rate, show);
  const levels = model.get("levels").map((decibels) => 10 ** (decibels / 20));

  function hear() {
    const soloed = state.solo.some(Boolean);
    const heard = (i) => (state.mixed ? (soloed ? state.solo[i] : !state.muted[i]) : i === state.selected);
    deck.hear(names.map((_, i) => (heard(i) ? (state.matched ? levels[i] : 1) : 0)));
  }
  function select(i) {
    if (i < 0 || i >= names.length) return;
    if (state.mixed) state.solo[i] = !state.solo[i];
    else state.selected = i;
    hear();
  }
  function change(changes) {
    Object.assign(state, changes);
    hear();
  }

  // the bar
  const play = make("button", { type: "button", className: "play", onclick: () => deck.toggle(), "aria-keyshortcuts": "Space" });
  const loop = make("button", { type: "button", textContent: "Loop", onclick: () => deck.loop(!deck.looped) });
  const match = make("button", {
    type: "button",
    textContent: "Equal loudness",
    title: "every signal at the same loudness (ITU-R BS.1770); off: as they were made",
    onclick: () => change({ matched: !state.matched }),
  });
  const mix = make("button", {
    type: "button",
    textContent: "Mix",
    title: "hear all signals together, with solo and mute; off: one at a time",
    onclick: () => change({ mixed: !state.mixed }),
  });
  const bounds = ["loop from", "to"].map((label, side) => {
    const field = make("input", { type: "number", step: "0.1", min: start, max: start + deck.duration, "aria-label": `${label}, seconds` });
    field.addEventListener("change", () => {
      const span = deck.span.slice();
      span[side] = Number(field.value) - start;
      if (!deck.choose(...span)) show();
    });
    return [make("label", {}, `${label} `, field, " s"), field];
  });
  const whole = make("button", { type: "button", textContent: "Whole", title: "no loop region", onclick: () => deck.loop(deck.looped, null) });
  const clock = make("output", { className: "clock", "aria-live": "off" });
  const bar = make("div", { className: "bar", role: "toolbar", "aria-label": "playback" });
  bar.append(play, loop, match, ...(names.length > 1 ? [mix] : []), ...bounds.map(([label]) => label), whole, clock);

  // a row per signal
  const rows = names.map((name, i) => {
    const pick = make("button", { type: "button", className: "pick", onclick: () => select(i) });
    if (i < 9) pick.setAttribute("aria-keyshortcuts", String(i + 1));
    pick.append(make("kbd", { textContent: i < 9 ? i + 1 : "" }), make("span", { textContent: name }));
    const toggleOf = (list, label, text) =>
      make("button", {
        type: "button", className: "channel", textContent: text, title: label, "aria-label": `${label} ${name}`,
        onclick: () => {
          state[list][i] = !state[list][i];
          hear();
        },
      }); // prettier-ignore
    const [solo, mute] = [toggleOf("solo", "solo", "S"), toggleOf("muted", "mute", "M")];
    const save = make("button", {
      type: "button", className: "channel", textContent: "⤓", title: "download as FLAC",
      "aria-label": `download ${name}`, onclick: () => download(model.get("signals")[i], `${model.get("title")} - ${name}`),
    }); // prettier-ignore
    const head = make("div", { className: "head" }, pick, make("span", { className: "note", textContent: notes[i] }));
    head.append(make("span", { className: "channels" }, solo, mute, save));
    const described = `waveform and spectrogram of ${name}, ${start.toFixed(1)} to ${(start + deck.duration).toFixed(1)} s, ${LOWEST_HZ} Hz to ${rate / 2000} kHz`;
    const [wave, spectrum] = [make("canvas", { role: "img", "aria-label": described }), make("canvas", { "aria-hidden": "true" })];
    const time = timeline(deck, wave, spectrum);
    return { row: make("div", { className: "row" }, head, time.element), pick, solo, mute, wave, spectrum, time };
  });
  const said = make("div", { className: "said", role: "status", "aria-live": "polite" });
  const keys = make("p", { className: "keys", textContent: "space plays, 1 to 9 or up and down switch, left and right move by a second, drag over a picture or press , and . to loop, click to move" });
  root.append(bar, ...rows.map(({ row }) => row), keys, said);

  function show() {
    play.textContent = deck.playing ? "❚❚ Pause" : "▶ Play";
    for (const [button, on] of [[loop, deck.looped], [match, state.matched], [mix, state.mixed]]) button.setAttribute("aria-pressed", on); // prettier-ignore
    deck.span.forEach((at, side) => (bounds[side][1].value = (start + at).toFixed(2)));
    whole.disabled = !deck.region;
    rows.forEach(({ row, pick, solo, mute, time }, i) => {
      row.classList.toggle("heard", deck.gains[i] > 0);
      pick.setAttribute("aria-pressed", deck.gains[i] > 0);
      solo.setAttribute("aria-pressed", state.solo[i]);
      mute.setAttribute("aria-pressed", state.muted[i]);
      solo.hidden = mute.hidden = !state.mixed;
      time.mark();
    });
    const heard = names.filter((_, i) => deck.gains[i] > 0).join(", ") || "nothing";
    const now = `${deck.playing ? "playing" : "stopped"}: ${heard}`;
    if (said.textContent !== now) said.textContent = now;
  }

  listensTo(root, ({ key }) => {
    if (/^[1-9]$/.test(key)) return () => select(Number(key) - 1);
    if ((key === "ArrowUp" || key === "ArrowDown") && !state.mixed)
      return () => select((state.selected + (key === "ArrowUp" ? names.length - 1 : 1)) % names.length);
    if (key === "l") return () => deck.loop(!deck.looped);
    return playbackKey(key, deck);
  });

  // pictures, drawn again when the width or the theme changes
  let drawn = 0;
  function draw() {
    const width = rows[0].time.element.clientWidth;
    if (width <= GUTTER + 20) return;
    const peak = buffers.reduce((most, buffer) => Math.max(most, peakOf(buffer)), 1e-6);
    rows.forEach(({ wave, spectrum }, i) => {
      drawWave(wave, buffers[i], width, 34, peak);
      drawSpectrogram(spectrum, buffers[i], pictures[i], width, 92, start);
    });
    drawn = width;
  }
  const resized = new ResizeObserver(() => rows[0].time.element.clientWidth !== drawn && draw());
  resized.observe(rows[0].time.element);
  const themed = new MutationObserver(draw);
  themed.observe(document.body, { attributes: true, attributeFilter: ["data-jp-theme-name", "data-theme", "class"] });
  const still = everyFrame(() => {
    const at = deck.position();
    for (const { time } of rows) time.move(at);
    clock.textContent = `${(start + at).toFixed(1)} s`;
  });
  const alone = takesTurns(deck);
  hear();
  root.dataset.ready = "true";
  return () => {
    [still, alone].forEach((end) => end());
    [resized, themed].forEach((observer) => observer.disconnect());
    deck.close();
  };
}

function download(view, name) {
  const url = URL.createObjectURL(new Blob([view], { type: "audio/flac" }));
  make("a", { href: url, download: `${name.replace(/[^\w .()-]+/g, "_")}.flac` }).click();
  setTimeout(() => URL.revokeObjectURL(url), 1000);
}

export default { render };
