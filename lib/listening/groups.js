// Sort the outputs of an unsupervised model into four groups, by ear.

async function render({ model, el }) {
  const [rate, stems, best, { gram, cross, energy }] = ["rate", "stems", "best", "products"].map((name) => model.get(name));
  const root = make("div", { className: "listening groups", role: "group", tabIndex: 0, "aria-label": "outputs and groups" });
  el.append(root);
  const buffers = await Promise.all(model.get("signals").map((view) => decode(view, rate)));
  const count = buffers.length - stems.length;
  const outputs = Array.from({ length: count }, (_, n) => n);
  let [mine, revealed, heard] = [stems.map(() => outputs.map(() => 0)), false, { kind: "mixture" }];
  const deck = new Deck(buffers, rate, show);
  const shown = () => (revealed ? best : mine);

  // SNR in dB of a sum of outputs against a stem, from inner products
  function snr(members, stem) {
    let error = energy[stem];
    for (const n of outputs) {
      if (!members[n]) continue;
      error -= 2 * cross[stem][n];
      for (const m of outputs) error += members[m] * gram[n][m];
    }
    return 10 * Math.log10(energy[stem] / Math.max(error, 1e-12 * energy[stem]));
  }
  const sounding = stems.map((_, at) => energy[at] > 0);
  const mean = (groups) => {
    const values = stems.flatMap((_, at) => (sounding[at] ? [snr(groups[at], at)] : []));
    return values.reduce((a, b) => a + b, 0) / values.length;
  };
  const text = (value) => value.toFixed(1).replace("-", "−").replace("−0.0", "0.0");

  function hear(choice = heard) {
    heard = choice;
    const { kind, at } = choice;
    const plays = {
      mixture: (i) => i < count,
      output: (i) => i === at,
      group: (i) => i < count && shown()[at][i],
      stem: (i) => i === count + at,
    }[kind];
    deck.hear(buffers.map((_, i) => Number(plays(i))));
  }
  function toggle(at, n) {
    if (revealed) [mine, revealed] = [best.map((row) => row.slice()), false]; // go on from there
    mine[at][n] = 1 - mine[at][n];
    hear(heard.kind === "group" ? { kind: "group", at } : heard);
  }
  const pick = (label, choice, facts = {}) => {
    const button = make("button", { type: "button", textContent: label, onclick: () => hear(choice), ...facts });
    return { button, choice };
  };

  const play = make("button", { type: "button", className: "play", onclick: () => deck.toggle(), "aria-keyshortcuts": "Space" });
  const reveal = make("button", { type: "button", onclick: () => ((revealed = !revealed), hear()) });
  const clear = make("button", { type: "button", textContent: "Start again", onclick: () => {
    [mine, revealed] = [stems.map(() => outputs.map(() => 0)), false];
    hear();
  } }); // prettier-ignore
  const clock = make("output", { className: "clock", "aria-live": "off" });
  const mixture = pick("Mixture", { kind: "mixture" });
  const heads = outputs.map((n) => pick(`Output ${n + 1}`, { kind: "output", at: n }, { "aria-keyshortcuts": n < 9 ? String(n + 1) : "" }));
  const sums = stems.map((stem, at) => pick(`my ${stem}`, { kind: "group", at }));
  const truths = stems.map((stem, at) => pick("true", { kind: "stem", at }, { "aria-label": `true ${stem}` }));
  const cells = stems.map((stem, at) =>
    outputs.map((n) => make("button", { type: "button", className: `cell ${stem}`, onclick: () => toggle(at, n), "aria-label": `output ${n + 1} in ${stem}` })),
  );
  const waves = outputs.map((n) => make("canvas", { role: "img", "aria-label": `waveform of output ${n + 1}` }));
  const values = stems.map(() => stems.map(() => make("td")));
  const total = make("p", { className: "question", role: "status", "aria-live": "polite" });

  const row = (first, rest) => make("tr", {}, make("th", { scope: "row" }, first), ...rest.map((content) => make("td", {}, content)), make("td"));
  const table = make("table", {}, make("thead", {}, make("tr", {}, make("td"), ...stems.map((stem) => make("th", { scope: "col", textContent: stem })), make("td"))));
  const body = make("tbody");
  outputs.forEach((n) => {
    const line = row(heads[n].button, stems.map((_, at) => cells[at][n]));
    line.lastChild.append(waves[n]);
    line.lastChild.className = "wave";
    body.append(line);
  });
  body.append(row("hear your sums", sums.map(({ button }) => button)), row("hear the stems", truths.map(({ button }) => button)));
  stems.forEach((stem, against) => body.append(make("tr", {}, make("th", { scope: "row", textContent: `dB against ${stem}` }), ...stems.map((_, at) => values[at][against]), make("td"))));
  table.append(body);
  const help = "Play, listen to the outputs (keys 1 to 9), and toggle each into the stems that it belongs to. Can you find the four stems?";
  root.append(make("p", { textContent: help }), make("div", { className: "bar" }, play, mixture.button, reveal, clear, clock), table, total);

  function show() {
    play.textContent = deck.playing ? "❚❚ Pause" : "▶ Play";
    reveal.textContent = revealed ? "Back to my grouping" : "Reveal the best grouping";
    for (const { button, choice } of [mixture, ...heads, ...sums, ...truths])
      button.setAttribute("aria-pressed", choice.kind === heard.kind && choice.at === heard.at);
    stems.forEach((stem, at) => {
      sums[at].button.textContent = `${revealed ? "best" : "my"} ${stem}`;
      cells[at].forEach((cell, n) => cell.setAttribute("aria-pressed", Boolean(shown()[at][n])));
      stems.forEach((_, against) => {
        values[at][against].textContent = sounding[against] ? text(snr(shown()[at], against)) : "silent";
        values[at][against].classList.toggle("own", at === against);
      });
    });
    const far = mean(best) - mean(mine);
    const found = far < 0.05 ? "That is the best there is." : `${text(far)} dB below the best grouping.`;
    const said = revealed ? `Best grouping: ${text(mean(best))} dB on average.` : `Your four stems: ${text(mean(mine))} dB on average. ${found}`;
    if (total.textContent !== said) total.textContent = said;
  }
  listensTo(root, ({ key }) => {
    if (/^[1-9]$/.test(key) && Number(key) <= count) return () => hear({ kind: "output", at: Number(key) - 1 });
    return playbackKey(key, deck);
  });
  const peak = Math.max(...buffers.slice(0, count).map(peakOf)) || 1;
  const resized = new ResizeObserver(() => {
    const width = waves[0].parentElement.clientWidth;
    if (width > 60) waves.forEach((canvas, n) => drawWave(canvas, buffers[n], width + GUTTER, 28, peak));
  });
  resized.observe(root);
  const still = everyFrame(() => (clock.textContent = `${deck.position().toFixed(1)} s`));
  const alone = takesTurns(deck);
  hear();
  root.dataset.ready = "true";
  return () => {
    for (const end of [still, alone, () => resized.disconnect(), () => deck.close()]) end();
  };
}

export default { render };
