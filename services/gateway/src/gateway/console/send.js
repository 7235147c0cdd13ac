import { Problem } from "./api.js";
import { byId, element, showProblem } from "./view.js";

const NAMES = { client: "Client ID", user: "User ID", topic: "Topic" };
const INPUTS = { client_id: "name", user_id: "name", topic: "name", event_type: "event-type", data: "data" };

/** The panel that sends one event. */
export class SendPanel {
  #publisher;
  #connect;

  constructor(publisher, connect) {
    this.#publisher = publisher;
    this.#connect = connect;
    const form = byId("send-form");
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      this.#send();
    });
    form.addEventListener("keydown", (event) => {
      if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
        event.preventDefault();
        form.requestSubmit();
      }
    });
    for (const radio of form.elements.to) radio.addEventListener("change", () => this.#choose(radio.value));
  }

  #choose(to) {
    byId("name-field").hidden = !(to in NAMES);
    byId("name-label").textContent = NAMES[to] ?? "";
    byId("name").placeholder = to === "topic" ? "prices.eur" : "";
  }

  async #send() {
    unmark();
    byId("send").disabled = true;
    try {
      const event = { ...this.#addressed(), ...content() };
      const broadcast = byId("send-form").elements.to.value === "broadcast";
      showAnswer(await (broadcast ? this.#publisher.broadcast(event) : this.#publisher.send(event)));
    } catch (error) {
      if (!(error instanceof Problem)) throw error;
      showProblem(byId("send-result"), error);
      mark(error.field);
    } finally {
      byId("send").disabled = false;
      byId("send-result").scrollIntoView({ block: "nearest" });
    }
  }

  #addressed() {
    const to = byId("send-form").elements.to.value;
    if (to === "broadcast") return {};
    if (to !== "self") return { [to === "topic" ? to : `${to}_id`]: byId("name").value.trim() };
    if (this.#connect.clientId) return { client_id: this.#connect.clientId };
    this.#connect.focus();
    throw new Problem({ title: "Connect first", detail: "You have no client ID yet that an event could be sent to." });
  }
}

function content() {
  const text = byId("data").value;
  const asJson = byId("send-form").elements.as.value === "json";
  return {
    event_type: byId("event-type").value.trim(),
    data: asJson ? parsed(text) : text,
    durable: byId("durable").checked,
  };
}

function parsed(text) {
  try {
    return JSON.parse(text);
  } catch (error) {
    throw new Problem({ title: "The data is no JSON", detail: `${error.message}. Mend it, or send it as text.`, field: "data" });
  }
}

function showAnswer({ id, trace_id: traceId }) {
  const facts = element("dl", { class: "facts" }, element("dt", {}, "ID"), element("dd", {}, code(id ?? "none: volatile")));
  if (traceId) facts.append(element("dt", {}, "Trace"), element("dd", {}, code(traceId)));
  byId("send-result").replaceChildren(element("div", { class: "accepted" }, element("strong", {}, "Accepted"), facts));
}

function code(text) {
  return element("code", {}, text);
}

function mark(field) {
  const input = byId(INPUTS[field] ?? "");
  input?.setAttribute("aria-invalid", "true");
  input?.focus();
}

function unmark() {
  for (const id of Object.values(INPUTS)) byId(id).removeAttribute("aria-invalid");
}
