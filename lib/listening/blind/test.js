// The blind test, one page at a time, for three hosts: a page of `lib.listening.serve`, and a widget in JupyterLab and
// Voilà. A host has `ask(message)` and `sound(code, page, slot)`, both promises; it sends letters and sounds only.

const HEARD = 2; // seconds after which a sound counts as heard; in the training half of it, if that is longer
const SHORTEST = 0.5; // seconds of a loop (BS.1534-3)
const SLIDER = { type: "range", step: 1 };

function blindTest(el, host) {
  const root = make("div", { className: "listening blind", role: "form", tabIndex: 0, dir: "auto" });
  el.append(root);
  let words = {}, consent = false, design = "", end = () => {}, pageKeys = () => null; // prettier-ignore
  const t = (key, facts = {}) => (words[key] ?? "").replace(/\{(\w+)\}/g, (_, name) => facts[name] ?? "");
  const p = (text, className = "") => make("p", { className, textContent: text });
  const lines = (...texts) => make("ul", {}, ...texts.join("\n").split("\n").map((line) => make("li", { textContent: line })));
  const button = (key, onclick, facts = {}) => make("button", { type: "button", textContent: t(key), onclick, ...facts });
  listensTo(root, (event) => pageKeys(event));
  ask({ type: "welcome" });

  // Send a message and show what comes back; returns whether it was taken.
  async function ask(message) {
    note(t("saving"));
    const [controls, focused] = [[...root.querySelectorAll("button:enabled, input:enabled")], document.activeElement];
    for (const control of controls) control.disabled = true;
    let reply;
    try {
      reply = await host.ask(message);
    } catch {
      reply = { refused: "lost" };
    }
    for (const control of controls) control.disabled = false;
    if (focused?.isConnected) focused.focus({ preventScroll: true });
    if (reply.page) await show(reply.page);
    if (reply.refused) note(t(reply.refused, reply) || "The server cannot be reached. Please reload this page.", true);
    else if (message.type === "answer") note(t("saved"));
    return !reply.refused;
  }
  function note(text, alarming = false) {
    const line = root.querySelector(".said-aloud");
    if (!line) return root.append(make("p", { className: "said-aloud", role: "status", textContent: text }));
    line.textContent = text;
    line.classList.toggle("alarming", alarming);
  }
  async function show(page) {
    end();
    [end, pageKeys] = [() => {}, () => null];
    if (page.words) words = page.words;
    const view = page.rest ? "rest" : page.view;
    const titles = { new: "code", training: "practice", volume: "volume", rest: "rest", questionnaire: "questionnaire", done: "done" };
    const title = (view === "welcome" && page.title) || t(titles[view] ?? page.test);
    const status = make("p", { className: "said-aloud", role: "status", "aria-live": "polite" });
    root.replaceChildren(make("h2", { textContent: title }), status);
    root.setAttribute("aria-label", title);
    Object.assign(root.dataset, { view, page: page.page ?? "" });
    const views = { welcome, new: unknown, volume, rest, trial: listened, training: listened, questionnaire, done };
    const shown = await views[view](page);
    status.before(...shown);
    const first = root.querySelector("input:is([name=code], [name=consent])"); // not past the consent
    (first?.name === "code" ? first : root).focus({ preventScroll: true });
    root.scrollIntoView?.({ block: "nearest" });
  }

  function welcome(page) {
    root.lang = page.language;
    design = page.design;
    const code = make("input", { type: "text", maxLength: 64, autocomplete: "off", name: "code", value: remembered("code") ?? "" });
    const form = make("form", {});
    if (page.consent) {
      const agreed = make("input", { type: "checkbox", name: "consent", onchange: () => (consent = agreed.checked) });
      const texts = page.consent.trim().split(/\n\s*\n/).map((text) => p(text)); // prettier-ignore
      form.append(make("div", { className: "consent" }, ...texts, make("label", { className: "choice" }, agreed, t("agree"))));
    }
    const begin = make("button", { type: "submit", className: "main", textContent: t("begin") });
    form.append(p(t(page.issued ? "issued codes" : "codes")), make("div", { className: "bar" }, make("label", {}, `${t("code")} `, code), begin));
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      ask({ type: "begin", code: code.value, consent });
    });
    const contact = page.contact ? [p(t("contact", page))] : [];
    return [p(t("headphones")), p(t("minutes", { n: page.minutes })), ...contact, form];
  }
  function unknown({ code }) {
    const again = () => ask({ type: "begin", code, consent, new: true });
    const other = button("other code", () => ask({ type: "welcome" }));
    return [p(t("new", { code })), make("div", { className: "bar" }, button("begin new", again, { className: "main" }), other)];
  }
  function rest(page) {
    return [p(t("rest help", { n: page.page + 1, ...page })), button("next", () => show({ ...page, rest: false }), { className: "main" })];
  }
  function done(page) {
    remember("code", null);
    return [p(t("done help", page))];
  }
  function questionnaire(page) {
    const fields = page.questionnaire.map(({ ask, choices }) => {
      const options = ["", ...choices].map((choice) => make("option", { textContent: choice }));
      const field = choices.length ? make("select", {}, ...options) : make("input", { type: "text", maxLength: 5000 });
      return [make("label", { className: "asked" }, ask, field), field];
    });
    const comment = make("textarea", { rows: 4, maxLength: 5000, name: "comment" });
    const send = () => ask({ type: "questionnaire", code: page.code, answers: fields.map(([, field]) => field.value), comment: comment.value });
    const last = page.comment ? [make("label", { className: "asked" }, t("comment"), comment)] : [];
    return [p(t("optional")), ...fields.map(([label]) => label), ...last, button("submit", send, { className: "main" })];
  }

  // The sounds of a page behind a play button and a waveform, and what was heard of each.
  async function deckOf(page, sounds, letters, changed) {
    note(t("loading"));
    const views = await Promise.all(letters.map((_, slot) => host.sound(page.code, sounds, slot)));
    const buffers = await Promise.all(views.map((bytes) => decode(new DataView(bytes), page.rate)));
    const [plays, seconds, begun] = [letters.map(() => 0), letters.map(() => 0), performance.now()];
    let [level, selected, before, wasPlaying] = [10 ** ((page.level ?? 0) / 20), 0, begun, false];
    const deck = new Deck(buffers, page.rate, refresh, SHORTEST);
    const play = button("play", () => deck.toggle(), { className: "play", "aria-keyshortcuts": "Space" });
    const whole = button("whole", () => deck.loop(true, null));
    const clock = make("output", { className: "clock", "aria-live": "off" });
    const wave = make("canvas", { role: "img", "aria-label": t("waveform", { letter: letters[0] }) });
    const time = timeline(deck, wave);
    const bar = make("div", { className: "bar", role: "toolbar", "aria-label": t("playback") }, play, whole, clock);
    const resized = new ResizeObserver(() => {
      const width = time.element.clientWidth;
      if (width > GUTTER + 20) drawWave(wave, buffers[0], width, 56, peakOf(buffers[0]) || 1);
    });
    resized.observe(time.element);
    const still = everyFrame(() => {
      const now = performance.now();
      if (deck.playing) seconds[selected] += (now - before) / 1000;
      if (deck.playing && Math.floor(2 * seconds[selected]) !== Math.floor(2 * (seconds[selected] - (now - before) / 1000))) changed();
      before = now;
      time.move(deck.position());
      clock.textContent = `${deck.position().toFixed(1)} s`;
    });
    const alone = takesTurns(deck);
    end = () => {
      for (const stop of [still, alone, () => resized.disconnect(), () => deck.close()]) stop();
    };
    function refresh() {
      if (deck.playing && !wasPlaying) plays[selected]++;
      wasPlaying = deck.playing;
      play.textContent = deck.playing ? `❚❚ ${t("pause")}` : `▶ ${t("play")}`;
      whole.hidden = !deck.region;
      time.mark();
      changed();
    }
    function listen(slot, decibels) {
      if (deck.playing && slot !== selected) plays[slot]++;
      selected = slot;
      if (decibels !== undefined) level = 10 ** (decibels / 20);
      deck.hear(letters.map((_, i) => (i === slot ? level : 0)));
    }
    const heard = () => ({ plays, seconds, elapsed: (performance.now() - begun) / 1000 });
    return { deck, elements: [bar, time.element], listen, heard, seconds, selected: () => selected };
  }
  async function loaded(page, ...rest) {
    try {
      return await deckOf(page, ...rest);
    } catch {
      note(t("lost"), true);
      return null;
    }
  }
  const retry = (page) => [button("next", () => show(page), { className: "main" })];

  async function volume(page) {
    remember("code", page.code);
    let player = null;
    const slider = make("input", { ...SLIDER, min: -40, max: 0, value: -6, "aria-label": t("level") });
    const lock = button("lock", () => ask({ type: "level", code: page.code, level: Number(slider.value) }), { className: "main", disabled: true });
    const missing = make("span", { className: "missing", textContent: t("play first") });
    player = await loaded(page, "volume", [t("reference")], () => (lock.disabled = !(missing.hidden = player?.seconds[0] >= 1)));
    if (!player) return retry(page);
    slider.addEventListener("input", () => player.listen(0, Number(slider.value)));
    player.listen(0, -6);
    pageKeys = ({ key, target }) => (key.startsWith("Arrow") && target === slider ? null : playbackKey(key, player.deck));
    note("");
    const level = make("label", { className: "level" }, `${t("level")} `, slider);
    return [p(t("keep code", page)), p(t("volume help")), ...player.elements, level, make("div", { className: "bar" }, lock, missing)];
  }

  async function listened(page) {
    const [training, rated] = [page.view === "training", page.test === "mushra"];
    const offset = page.test === "abx" ? 0 : 1;
    const letters = page.letters.slice(offset, offset + (rated ? 26 : 2));
    const draft = `${design}/${page.code}/${page.sounds}`;
    const values = (page.values ?? JSON.parse(remembered(draft) ?? "null") ?? letters.map(() => null)).slice();
    let [chosen, player] = [null, null];
    const picks = page.letters.map((letter, i) => {
      const key = i < 10 - !offset ? String(i + !offset) : "";
      const pick = make("button", { type: "button", className: "letter", onclick: () => player.listen(i), "aria-label": t("listen", { letter }) });
      if (key) pick.setAttribute("aria-keyshortcuts", key);
      pick.append(make("span", { textContent: letter }), " ", make("kbd", { textContent: key }));
      return pick;
    });
    const submit = button(training ? "next" : "submit", send, { className: "main", disabled: true });
    const back = button("back", () => ask({ type: "open", code: page.code, page: page.page - 1 }), { hidden: !page.back });
    const missing = make("span", { className: "missing", role: "status" });
    const answers = rated ? sliders() : choices();
    player = await loaded(page, page.sounds, page.letters, refresh);
    if (!player) return retry(page);
    const enough = Math.min(player.deck.duration, training ? Math.max(HEARD, player.deck.duration / 2) : HEARD) - 0.05;

    function sliders() {
      const bands = t("bands").split(",").map((band) => band.trim());
      const scale = (tag, className, texts) => {
        const marks = make("div", { className }, ...texts.map((text) => make(tag, { textContent: text })));
        return make("div", { className: "scale", "aria-hidden": "true" }, make("span"), marks, make("span"));
      };
      const scales = [scale("span", "bands", bands), scale("small", "marks", [0, 20, 40, 60, 80, 100])];
      const table = make("div", { className: "sliders" }, make("div", { className: "condition" }, picks[0]), ...scales);
      letters.forEach((letter, i) => {
        const slider = make("input", { ...SLIDER, min: 0, max: 100, value: values[i] ?? 50, "aria-label": t("rating", { letter }) });
        const shown = make("span", { className: "rating", "aria-hidden": "true", textContent: values[i] ?? "–" });
        const given = () => {
          values[i] = Number(slider.value);
          shown.textContent = slider.value;
          slider.classList.remove("unset");
          slider.setAttribute("aria-valuetext", `${slider.value}, ${bands[Math.min(Math.floor(values[i] / 20), 4)]}`);
          if (!training) remember(draft, JSON.stringify(values));
          refresh();
        };
        slider.classList.toggle("unset", values[i] === null);
        slider.addEventListener("focus", () => player.listen(i + offset));
        slider.addEventListener("input", given);
        // a slider released in its initial position fires no input: a rating of 50
        slider.addEventListener("pointerup", () => values[i] === null && given());
        table.append(make("div", { className: "condition" }, picks[i + offset], slider, shown));
      });
      return table;
    }
    function choices() {
      const group = make("div", { className: "choices", role: "radiogroup", "aria-label": t("answer") });
      letters.forEach((letter, i) => {
        const radio = make("input", { type: "radio", name: "answer" });
        radio.addEventListener("change", () => {
          chosen = i;
          refresh();
        });
        group.append(make("label", { className: "choice" }, radio, t(page.test === "abx" ? "is" : "better", { letter })));
      });
      return make("div", {}, make("div", { className: "bar" }, ...picks), group);
    }
    async function send() {
      const { code, revision } = page;
      const facts = { code, page: page.page, ...player.heard() };
      if (player.deck.playing) player.deck.pause();
      if (training) return ask({ type: "trained", ...facts });
      if (await ask({ type: "answer", ...facts, revision, values: rated ? values : [chosen] })) remember(draft, null);
    }
    function refresh() {
      if (!player) return;
      const heard = player.seconds.map((time) => time >= enough);
      picks.forEach((pick, i) => {
        pick.setAttribute("aria-pressed", i === player.selected());
        pick.classList.toggle("heard-once", heard[i]);
        pick.style.setProperty("--heard", Math.min(player.seconds[i] / enough, 1));
      });
      const unheard = page.revision ? [] : page.letters.filter((_, i) => !heard[i]);
      const unrated = rated && !training ? letters.filter((_, i) => values[i] === null) : [];
      const why = [];
      if (unheard.length) why.push(t("unheard", { letters: unheard.join(", ") }));
      if (unrated.length) why.push(t("unrated", { letters: unrated.join(", ") }));
      if (!rated && !training && chosen === null) why.push(t("unchosen"));
      submit.disabled = why.length > 0;
      if (missing.textContent !== why.join("; ")) missing.textContent = why.join("; ");
    }
    pageKeys = ({ key, target }) => {
      if (key === " " && target.matches("[type=radio]:not(:checked)")) return null; // chooses it
      const i = Number(key) - !offset;
      if (/^[0-9]$/.test(key) && i >= 0 && i < page.letters.length) return () => player.listen(i);
      if (key.startsWith("Arrow") && target.matches("input")) return null; // moves the slider
      return playbackKey(key, player.deck);
    };
    player.listen(0);
    note("");
    const state = training ? t("training", { n: page.page + 1, of: page.of }) : t("page", { n: page.page + 1, ...page });
    const help = training ? [lines(t("help"), t(`${page.test} help`))] : [];
    const progress = training ? [] : [make("progress", { max: page.of, value: page.page, "aria-label": state })];
    return [
      make("p", { className: "state" }, `${state} · ${t("your code")} `, make("b", { textContent: page.code })), ...progress,
      p(page.asked, "question"), ...help, ...player.elements, answers, make("div", { className: "bar" }, submit, back, missing),
    ]; // prettier-ignore
  }
  return () => end();
}

// Drafts and the code outlive a reload of the page, where the browser allows it.
function remember(key, value) {
  try {
    if (value === null) sessionStorage.removeItem(key);
    else sessionStorage.setItem(key, value);
  } catch {} // prettier-ignore
}
function remembered(key) {
  try {
    return sessionStorage.getItem(key);
  } catch {
    return null;
  }
}
