// Sort the outputs of an unsupervised model into four groups, by ear.

async function render({ model, el }) {
  const [rate, stems, best, { gram, cross, energy }] = ["rate", "stems", "best", "products"].map((name) => model.get(name));
  const root = make("div", { className: "listening groups", role: "group", tabIndex: 0, "aria-label": "outputs and groups" });
  el.append(root);
  const buffers = await Promise.all(model.get("signals").map((view) => decode(view, rate)));
  const count = buffers.length - stems.length;
  const outputs = Array.from({ length: count }, (_, n) => n);
  const none = () => stems.map(() => outputs.map(() => 0));
  let [mine, revealed, heard] = [none(), false, { kind: "mixture" }];
  let [last, step] = [0, ""]; // the output that was heard last; what the last move brought
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
  const toggled = (groups, at, n) => groups.map((row, i) => row.map((member, m) => (i === at && m === n ? 1 - member : member)));
  function toggle(at, n) {
    const before = shown();
    [mine, revealed] = [toggled(before, at, n), false]; // from the best grouping too
    const gain = snr(mine[at], at) - snr(before[at], at);
    step = sounding[at] ? `Output ${n + 1} ${mine[at][n] ? "into" : "out of"} ${stems[at]}: ${gain < 0 ? "" : "+"}${text(gain)} dB. ` : "";
    hear({ kind: "group", at });
  }
  // The move that brings most: its cell blinks.
  function hint() {
    const moves = cells.flatMap((row, at) => row.map((cell, n) => ({ cell, value: mean(toggled(shown(), at, n)) })));
    const { cell, value } = moves.reduce((a, b) => (b.value > a.value ? b : a));
    if (value > mean(shown())) cell.animate([{ background: "orange" }, {}, { background: "orange" }, {}], 1500);
    else step = "No single move brings more. ";
    show();
  }
  function listen(choice) {
    if (choice.kind === "output") last = choice.at;
    hear(choice);
    if (!deck.playing) deck.play();
  }
  const pick = (label, choice, facts = {}) => {
    const button = make("button", { type: "button", textContent: label, onclick: () => listen(choice), ...facts });
    return { button, choice };
  };

  const play = make("button", { type: "button", className: "play", onclick: () => deck.toggle(), "aria-keyshortcuts": "Space" });
  const become = (groups, open) => {
    [mine, revealed, step] = [groups, open, ""];
    hear();
  };
  const hinted = make("button", { type: "button", textContent: "Hint", title: "the move that brings most blinks", onclick: hint });
  const reveal = make("button", { type: "button", onclick: () => become(mine, !revealed) });
  const clear = make("button", { type: "button", textContent: "Start again", onclick: () => become(none(), false) });
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
  const times = waves.map((wave) => timeline(deck, wave));
  const top = Math.max(...stems.map((_, at) => (sounding[at] ? snr(best[at], at) : 0)));
  const progress = make("progress", { max: Math.max(mean(best), 0.1), "aria-label": "how near the best grouping is" });
  const total = make("p", { className: "question", role: "status", "aria-live": "polite" });

  const row = (first, rest) => make("tr", {}, make("th", { scope: "row" }, first), ...rest.map((content) => make("td", {}, content)), make("td"));
  const table = make("table", {}, make("thead", {}, make("tr", {}, make("td"), ...stems.map((stem) => make("th", { scope: "col", className: stem, textContent: stem })), make("td", { className: "wave" }))));
  const body = make("tbody");
  const lines = outputs.map((n) => row(heads[n].button, stems.map((_, at) => cells[at][n])));
  lines.forEach((line, n) => {
    line.lastChild.append(times[n].element);
    line.lastChild.className = "wave";
  });
  body.append(...lines, row("your sum", sums.map(({ button }) => button)), row("the stem", truths.map(({ button }) => button)));
  stems.forEach((stem, against) => body.append(make("tr", {}, make("th", { scope: "row", textContent: `dB to ${stem}` }), ...stems.map((_, at) => values[at][against]), make("td"))));
  table.append(body);
  const help = [
    `Can you find the four stems? Listen to the outputs one by one (keys 1 to ${count}), and put each where you hear it: click into its row, or press ${stems.map((stem) => stem[0]).join(", ")}.`,
    "A stem may need several outputs, and an output may help several stems. Below are the SNR of your sums: bold against the stem that they are meant to be.",
  ];
  const bar = make("div", { className: "bar" }, play, mixture.button, hinted, reveal, clear, clock);
  root.append(...help.map((textContent) => make("p", { textContent })), bar, table, progress, total);

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
        values[at][against].style.setProperty("--share", sounding[against] ? Math.max(snr(shown()[at], against) / top, 0) : 0);
      });
    });
    lines.forEach((line, n) => line.classList.toggle("heard", deck.gains[n] > 0));
    times.forEach((time) => time.mark());
    progress.value = Math.max(mean(shown()), 0);
    const far = mean(best) - mean(mine);
    const found = far < 0.05 ? "That is the best there is." : `${text(far)} dB below the best grouping.`;
    const said = revealed ? `Best grouping: ${text(mean(best))} dB on average.` : `${step}Your four stems: ${text(mean(mine))} dB on average. ${found}`;
    if (total.textContent !== said) total.textContent = said;
  }
  listensTo(root, ({ key }) => {
    if (/^[1-9]$/.test(key) && Number(key) <= count) return () => listen({ kind: "output", at: Number(key) - 1 });
    const at = stems.findIndex((stem) => stem[0] === key);
    if (at >= 0) return () => toggle(at, last);
    return playbackKey(key, deck);
  });
  const peak = Math.max(...buffers.slice(0, count).map(peakOf)) || 1;
  const resized = new ResizeObserver(() => {
    const width = waves[0].parentElement.clientWidth;
    if (width > 60) waves.forEach((canvas, n) => drawWave(canvas, buffers[n], width + GUTTER, 28, peak));
  });
  resized.observe(root);
  const still = everyFrame(() => {
    for (const time of times) time.move(deck.position());
    clock.textContent = `${deck.position().toFixed(1)} s`;
  });
  const alone = takesTurns(deck);
  hear();
  root.dataset.ready = "true";
  return () => {
    for (const end of [still, alone, () => resized.disconnect(), () => deck.close()]) end();
  };
}

export default { render };
