// The blind test, one page at a time. It receives letters and sounds only.

const BANDS = ["Bad", "Poor", "Fair", "Good", "Excellent"]; // ITU-R BS.1534-3: 0 to 100 in five equal bands
const ANSWER_SECONDS = 8; // without a reply, after which the connection counts as lost

function render({ model, el }) {
  const root = make("div", { className: "listening blind", role: "form", tabIndex: 0 });
  el.append(root);
  const asked = new Map(); // messages without a reply
  let end = () => {};

  function ask(message) {
    const id = crypto.randomUUID?.() ?? String(Math.random());
    note("saving ...");
    asked.set(id, setTimeout(() => {
      lock();
      note("The connection is lost. All submitted answers are saved. Please reload this page and enter your code again.", true);
    }, 1000 * ANSWER_SECONDS)); // prettier-ignore
    model.send({ ...message, id });
  }
  function answered(message) {
    clearTimeout(asked.get(message.id));
    if (!asked.delete(message.id)) return;
    if (message.type === "refused") note(message.why, true);
    else note(asked.size ? "saving ..." : "saved");
  }
  function note(text, alarming = false) {
    const line = root.querySelector(".said-aloud");
    if (!line) return;
    line.textContent = text;
    line.classList.toggle("alarming", alarming);
  }
  function lock() {
    for (const control of root.querySelectorAll("button, input")) control.disabled = true;
  }
  async function show() {
    end();
    end = () => {};
    const page = model.get("page");
    const views = { welcome, done, trial: listened, training: listened };
    root.replaceChildren(make("h2", { textContent: page.title }));
    root.dataset.view = page.view;
    root.setAttribute("aria-label", page.title);
    if (views[page.view]) await views[page.view](page);
    root.append(make("p", { className: "said-aloud", role: "status", "aria-live": "polite" }));
    root.dataset.trial = page.trial ?? "";
    (root.querySelector("input[name=code]") ?? root).focus({ preventScroll: true });
  }

  function welcome(page) {
    const code = make("input", { type: "text", maxLength: 12, autocomplete: "off", name: "code" });
    const start = make("button", { type: "submit", className: "main", textContent: "Begin" });
    const form = make("form", {}, make("label", {}, "Your code ", code), " ", start);
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      ask({ type: "begin", code: code.value });
    });
    root.append(
      make("p", { textContent: "Please use headphones in a quiet room. Set a comfortable level on the next page, and do not change it afterwards." }),
      ...page.protocol.map((line) => make("p", { textContent: line })),
      make("p", { textContent: "Enter the code you were given, or your earlier code to continue. Leave the field empty for a new code. Please do not use your name." }),
      form,
    );
  }

  function done(page) {
    root.append(make("p", {}, "That was the last page. Your answers are saved under the code ", make("b", { textContent: page.code }), ". You may close this window."));
  }

  async function listened(page) {
    const training = page.view === "training";
    const offset = page.letters[0] === "Reference" ? 1 : 0;
    const buffers = await Promise.all(page.signals.map((view) => decode(view, page.rate)));
    if (page !== model.get("page")) return; // replaced in the meantime
    let selected = 0;
    const heard = page.letters.map(() => false);
    const values = page.letters.slice(offset).map((_, i) => page.drafts[i] ?? null);
    let chosen = null;
    const deck = new Deck(buffers, page.rate, refresh);

    const play = make("button", { type: "button", className: "play", onclick: () => deck.toggle(), "aria-keyshortcuts": "Space" });
    const whole = make("button", { type: "button", textContent: "Whole passage", title: "no loop region", onclick: () => deck.loop(true, null) });
    const clock = make("output", { className: "clock", "aria-live": "off" });
    const picks = page.letters.map((letter, i) => {
      const key = offset ? String(i) : String(i + 1);
      const button = make("button", { type: "button", className: "letter", onclick: () => listen(i), "aria-label": `listen to ${letter}` });
      if (key.length === 1) button.setAttribute("aria-keyshortcuts", key);
      button.append(make("span", { textContent: letter }), " ", make("kbd", { textContent: key.length === 1 ? key : "" }));
      return button;
    });
    const wave = make("canvas", { role: "img", "aria-label": `waveform of ${page.letters[0]}; drag over it to loop a part` });
    const time = timeline(deck, wave);
    const submit = make("button", { type: "button", className: "main", onclick: send });
    const missing = make("span", { className: "missing", role: "status" });

    root.append(
      make("p", { className: "state" }, training ? "Training: this page does not count. " : `Page ${page.done + 1} of ${page.of}. `, "Your code: ", make("b", { textContent: page.code })),
      make("p", { className: "question", textContent: page.question }),
    );
    if (training) root.append(make("p", { textContent: hints(page.test) }));
    const bar = make("div", { className: "bar", role: "toolbar", "aria-label": "playback" }, play, whole, clock);
    root.append(bar, time.element);
    if (page.test === "mushra") root.append(sliders());
    else root.append(choices());
    root.append(make("div", { className: "bar" }, submit, missing));

    function sliders() {
      const scale = make("div", { className: "scale", "aria-hidden": "true" }, make("span"), make("div", {}, ...BANDS.map((band) => make("span", { textContent: band }))), make("span"));
      const table = make("div", { className: "sliders" }, make("div", { className: "condition" }, picks[0]), scale);
      values.forEach((value, i) => {
        const letter = page.letters[i + offset];
        const slider = make("input", { type: "range", min: 0, max: 100, step: 1, value: value ?? 50, "aria-label": `rating of ${letter}` });
        const shown = make("span", { className: "rating", "aria-hidden": "true", textContent: value ?? "–" });
        const show = () => {
          values[i] = Number(slider.value);
          shown.textContent = slider.value;
          slider.classList.remove("unset");
          slider.setAttribute("aria-valuetext", `${slider.value}, ${BANDS[Math.min(Math.floor(values[i] / 20), 4)]}`);
          refresh();
        };
        slider.classList.toggle("unset", value === null);
        slider.addEventListener("focus", () => listen(i + offset));
        slider.addEventListener("input", show);
        const given = () => {
          show();
          if (!training) ask({ type: "rate", trial: page.trial, slot: i, value: values[i] });
        };
        slider.addEventListener("change", given);
        // a slider released in its initial position fires no change: a rating of 50
        slider.addEventListener("pointerup", () => values[i] === null && given());
        table.append(make("div", { className: "condition" }, picks[i + offset], slider, shown));
      });
      return table;
    }
    function choices() {
      const group = make("div", { className: "choices", role: "radiogroup", "aria-label": "your answer" });
      [0, 1].forEach((i) => {
        const label = page.test === "abx" ? `X is ${page.letters[i]}` : `${page.letters[i + offset]} is better`;
        const radio = make("input", { type: "radio", name: "answer" });
        radio.addEventListener("change", () => {
          chosen = i;
          refresh();
        });
        group.append(make("label", {}, radio, ` ${label}`));
      });
      return make("div", {}, make("div", { className: "bar" }, ...picks), group);
    }
    function listen(i) {
      selected = i;
      deck.hear(page.letters.map((_, k) => (k === i ? 1 : 0)));
    }
    function send() {
      if (training) return ask({ type: "trained" });
      submit.disabled = true;
      ask({ type: "submit", trial: page.trial, values: page.test === "mushra" ? values : [chosen] });
    }
    function refresh() {
      if (deck.playing) heard[selected] = true;
      play.textContent = deck.playing ? "❚❚ Pause" : "▶ Play";
      whole.hidden = !deck.region;
      picks.forEach((button, i) => {
        button.setAttribute("aria-pressed", i === selected);
        button.classList.toggle("heard-once", heard[i]);
      });
      time.mark();
      const unheard = page.letters.filter((_, i) => !heard[i]);
      const unrated = page.test === "mushra" ? page.letters.slice(offset).filter((_, i) => values[i] === null) : [];
      const why = [];
      if (unheard.length) why.push(`not heard yet: ${unheard.join(", ")}`);
      if (unrated.length) why.push(`not rated yet: ${unrated.join(", ")}`);
      if (page.test !== "mushra" && chosen === null) why.push("no answer yet");
      submit.textContent = training ? "Start the test" : "Submit";
      submit.disabled = !training && why.length > 0;
      const text = training ? "" : why.join("; ");
      if (missing.textContent !== text) missing.textContent = text;
    }
    pageKeys = ({ key, target }) => {
      if (key === " " && target.matches("[type=radio]:not(:checked)")) return null; // chooses it
      const i = offset ? Number(key) : Number(key) - 1;
      if (/^[0-9]$/.test(key) && i >= 0 && i < page.letters.length) return () => listen(i);
      if (key.startsWith("Arrow") && target.matches("input")) return null; // moves the slider
      return playbackKey(key, deck);
    };
    const draw = () => {
      const width = time.element.clientWidth;
      if (width > GUTTER + 20) drawWave(wave, buffers[0], width, 56, peakOf(buffers[0]) || 1);
    };
    const resized = new ResizeObserver(draw);
    resized.observe(time.element);
    const still = everyFrame(() => {
      time.move(deck.position());
      clock.textContent = `${deck.position().toFixed(1)} s`;
    });
    const alone = takesTurns(deck);
    end = () => {
      pageKeys = () => null;
      resized.disconnect();
      still();
      alone();
      deck.close();
    };
    listen(0);
  }

  let pageKeys = () => null;
  listensTo(root, (event) => pageKeys(event));
  model.on("change:page", show);
  model.on("msg:custom", answered);
  show();
  return () => {
    model.off("change:page", show);
    model.off("msg:custom", answered);
    for (const timer of asked.values()) clearTimeout(timer);
    end();
  };
}

function hints(test) {
  const shared = "Press Play (or the space bar), then switch between the sounds with their buttons or the digit keys; they stay synchronous. Drag over the waveform to loop a part. ";
  return shared + {
    mushra: "Move every slider: 100 means no difference from the reference. One of the sounds is the reference itself: at least one should get 100. Listen to all sounds here to learn the range of quality.",
    preference: "Listen to the reference and both sounds as often as you like, then choose.",
    abx: "Listen to A, B and X as often as you like, then choose which of the two is X. If you are unsure, guess.",
  }[test]; // prettier-ignore
}

export default { render };
