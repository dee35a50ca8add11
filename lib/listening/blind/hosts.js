const ANSWER_SECONDS = 15; // without a reply, after which the connection counts as lost

// A widget: messages to the kernel and back, each with a number.
function render({ model, el }) {
  const asked = new Map();
  let count = 0;
  function send(message) {
    const id = `${Date.now()}-${count++}`;
    return new Promise((resolve, reject) => {
      asked.set(id, resolve);
      setTimeout(() => asked.delete(id) && reject(new Error("no reply")), 1000 * ANSWER_SECONDS);
      model.send({ ...message, id });
    });
  }
  function answered(message, buffers) {
    const resolve = asked.get(message.id);
    if (asked.delete(message.id)) resolve({ ...message, buffers });
  }
  model.on("msg:custom", answered);
  const sound = async (code, page, slot) => {
    const { buffers } = await send({ type: "sound", code, page, slot });
    return new Uint8Array(new Uint8Array(buffers[0].buffer, buffers[0].byteOffset, buffers[0].byteLength)).buffer;
  };
  const end = blindTest(el, { ask: send, sound });
  return () => {
    model.off("msg:custom", answered);
    end();
  };
}

// A page of `lib.listening.serve`.
function plainPage() {
  const token = location.search;
  const fetched = async (address, options) => {
    const response = await fetch(address + token, options);
    if (!response.ok) throw new Error(response.status);
    return response;
  };
  const headers = { "Content-Type": "application/json" };
  blindTest(document.body, {
    ask: async (message) => (await fetched("reply", { method: "POST", headers, body: JSON.stringify(message) })).json(),
    sound: async (code, page, slot) => (await fetched(`sound/${encodeURIComponent(code)}/${page}/${slot}`)).arrayBuffer(),
  });
}

if (document.documentElement.dataset.listening) plainPage();
export default { render };
