import { Tidegate, withTicket } from "./tidegate/index.js";

const [gateway, publisher] = ["gateway", "publisher"].map((name) => document.querySelector(`meta[name=${name}]`).content);
const byId = (id) => document.getElementById(id);
const stream = `${gateway}/api/sse`;
const TYPES = ["connected", "greeting", "news", "gap", "closing"];
let user = "";
let open = null;

/** This page's own back end. */
async function ask(path, body) {
  const headers = { "Content-Type": "application/json" };
  const answer = await fetch(path, { method: "POST", headers, body: JSON.stringify(body ?? {}) });
  if (!answer.ok) throw Object.assign(new Error(await answer.text()), { status: answer.status });
  return answer;
}

/** Asked before each attempt, and when the token is about to expire. */
const token = async () => (await ask("/token")).text();

/** Three ways for a page to say who it is. Each gives what can be closed. */
const WAYS = {
  async bearer() {
    return following(new Tidegate(stream, { userId: user, topics: ["news.>"], token }));
  },

  /** For the browser's own EventSource, which can send no header. */
  async ticket() {
    const wish = { userId: user, topics: ["news.>"], token, tickets: `${publisher}/api/auth/tickets` };
    const held = { closed: false, close: () => ((held.closed = true), held.source?.close()) };
    const go = async (lastEventId) => {
      held.source = new EventSource(await withTicket(stream, { ...wish, lastEventId }));
      for (const type of TYPES) {
        held.source.addEventListener(type, (event) => ((lastEventId = event.lastEventId || lastEventId), show(event)));
      }
      held.source.onopen = () => state("open");
      held.source.onerror = () => {
        state("waiting");
        // EventSource comes back by itself with its ticket, until the token's end. Then another ticket is due.
        if (held.source.readyState === EventSource.CLOSED && !held.closed) setTimeout(() => go(lastEventId).catch(tell), 1_000);
      };
    };
    await go("");
    return held;
  },

  /** The back end sets it, anew before each attempt; no script can read it. There is no token for this page to give. */
  async cookie() {
    const renewed = async () => (await ask("/cookie"), "");
    const fetchOptions = { credentials: "include" };
    return following(new Tidegate(stream, { userId: user, topics: ["news.>"], token: renewed, fetchOptions }));
  },
};

function following(client) {
  client.on("event", show);
  client.on("state", ({ name, problem }) => (state(name), problem && tell(problem)));
  return client;
}

function show({ type, data }) {
  const line = document.createElement("li");
  line.textContent = `${type}: ${data}`;
  byId("log").prepend(line);
}

function state(name) {
  byId("state").textContent = name;
}

function tell(problem) {
  byId("problem").textContent = [problem.message, problem.detail].filter(Boolean).join(": ");
}

function end() {
  open?.close();
  open = null;
  state("not connected");
  byId("log").replaceChildren();
}

async function doing(work) {
  byId("problem").textContent = "";
  await work().catch(tell);
}

byId("login").addEventListener("submit", (event) => {
  event.preventDefault();
  doing(async () => {
    user = (await (await ask("/login", Object.fromEntries(new FormData(event.target)))).json()).user;
    byId("who").textContent = user;
    byId("login").hidden = true;
    byId("inside").hidden = false;
  });
});
byId("logout").addEventListener("click", () => doing(async () => {
  end();
  await ask("/logout");
  byId("login").hidden = false;
  byId("inside").hidden = true;
}));
for (const button of document.querySelectorAll("[data-way]")) {
  button.addEventListener("click", () => doing(async () => {
    end();
    open = await WAYS[button.dataset.way]();
  }));
}
byId("notify").addEventListener("click", () => doing(() => ask("/notify")));
byId("publish").addEventListener("click", () => doing(async () => {
  const headers = { "Content-Type": "application/json", Authorization: `Bearer ${await token()}` };
  const body = JSON.stringify({ topic: `news.${user}`, event_type: "news", data: { text: `${user} was here` } });
  const answer = await fetch(`${publisher}/api/sse/send`, { method: "POST", headers, body });
  if (!answer.ok) throw new Error((await answer.json()).detail);
}));
