import { Tidegate } from "./client/index.js";
import { storage } from "./session.js";
import { byId, copyText, showProblem } from "./view.js";

const REMEMBERED = "tidegate.client_id";
const LABELS = { connecting: "Connecting", open: "Open", waiting: "Waiting to reconnect", resting: "Resting", closed: "Closed" };

/** The connection's panel: what is listened to, and how the connection does. */
export class ConnectPanel {
  /** The id that the gateway confirmed, or "" before the first connection. */
  clientId = "";
  #client = null;
  #session;
  #onEvent;
  #countdown = null;

  /** `onEvent` gets every event of the stream, in order. */
  constructor(session, onEvent) {
    this.#session = session;
    this.#onEvent = onEvent;
    session.on("change", () => {
      byId("connect-problem").replaceChildren();
      this.#client?.wake(true); // an open stream goes on with the new token at once, from where it is
    });
    byId("client-id").value = remembered();
    byId("copy").hidden = !byId("client-id").value;
    byId("client-id").addEventListener("input", (event) => (byId("copy").hidden = !event.target.value));
    byId("connect-form").addEventListener("submit", (event) => this.#toggle(event));
    byId("copy").addEventListener("click", () => this.#copy());
  }

  /** Whether a connection is open or on its way. */
  get running() {
    return this.#client?.running ?? false;
  }

  /** Moves the focus to the Connect button. */
  focus() {
    byId("connect").focus();
  }

  #toggle(event) {
    event.preventDefault();
    if (this.running) {
      this.#client.close();
      return;
    }
    byId("connect-problem").replaceChildren();
    const asked = byId("client-id").value.trim();
    // The same client goes on where it was; another one starts at the present.
    const from = asked && asked === this.clientId ? this.#client.lastEventId : "";
    this.#client = new Tidegate(address, { lastEventId: from, token: () => this.#session.token });
    this.#client.on("state", (state) => this.#show(state));
    this.#client.on("event", (taken) => this.#take(taken));
  }

  #take(event) {
    if (event.type === "connected") this.#confirmed(JSON.parse(event.data));
    if (event.type === "expiring") this.#session.ask("This token ends soon. Paste a new one to go on.");
    byId("fact-last").textContent = event.lastEventId || "–";
    this.#onEvent(event);
  }

  #confirmed({ client_id: clientId, listening }) {
    this.clientId = clientId;
    byId("fact-listening").textContent = Array.isArray(listening) ? listening.join(", ") : `${listening} names`;
    byId("client-id").value = clientId;
    byId("copy").hidden = false;
    remember(clientId);
  }

  #show(state) {
    byId("state").dataset.state = state.name;
    byId("state-text").textContent = LABELS[state.name];
    byId("state").title = state.reason ?? "";
    // Read-only, not disabled: what is listened to can still be reached, read and copied.
    for (const input of byId("connect-fields").querySelectorAll("input")) input.readOnly = this.running;
    byId("connect").textContent = this.running ? "Disconnect" : "Connect";
    byId("connect").classList.toggle("primary", !this.running);
    byId("fact-reconnects").textContent = this.#client.reconnects;
    this.#countDown(state);
    if (state.name !== "closed" || !state.problem) return;
    showProblem(byId("connect-problem"), state.problem);
    if (state.problem.status === 401) this.#session.refused(state.problem);
  }

  /** Counts in an element that screen readers skip: they are told the state alone, once. */
  #countDown({ name, until, reason }) {
    clearInterval(this.#countdown);
    const show = () => {
      const seconds = Math.max(0, Math.ceil((until - Date.now()) / 1_000));
      byId("state-countdown").textContent = name === "waiting" ? ` in ${seconds} s: ${reason}` : "";
    };
    show();
    if (name === "waiting") this.#countdown = setInterval(show, 250);
  }

  async #copy() {
    const copied = await copyText(byId("client-id"));
    byId("copy").textContent = copied ? "Copied" : "Selected";
    setTimeout(() => (byId("copy").textContent = "Copy"), 1_500);
  }
}

/** The stream's address as the fields stand now. They are read-only while connected; the id appears once it was made. */
function address() {
  const query = new URLSearchParams();
  const clientId = byId("client-id").value.trim();
  const userId = byId("user-id").value.trim();
  if (clientId) query.set("client_id", clientId);
  if (userId) query.set("user_id", userId);
  for (const topic of byId("topics").value.split(",")) {
    if (topic.trim()) query.append("topic", topic.trim());
  }
  return `api/sse?${query}`;
}

// Storage may be forbidden to the page; then the id lives as long as the page does.
function remembered() {
  try {
    return storage().getItem(REMEMBERED) ?? "";
  } catch {
    return "";
  }
}

function remember(clientId) {
  try {
    storage().setItem(REMEMBERED, clientId);
  } catch {
    // see above
  }
}
