import { asked } from "./asking.js";
import { sendable } from "./credentials.js";
import { problemOf } from "./problem.js";

const OPTIONS = new Set("token clientId userId topics lastEventId tickets fetch".split(" "));
const STREAM = /\/sse(?:\/jobs\/([^/]+))?$/;

/**
 * The stream's address with a ticket, for the browser's own EventSource, which can send no header. The contract is in
 * index.d.ts.
 */
export async function withTicket(url, options = {}) {
  for (const name of Object.keys(options)) {
    if (!OPTIONS.has(name)) throw new TypeError(`${name} is no option; ${[...OPTIONS].join(", ")} are`);
  }
  const [path, search = ""] = String(url).split("#")[0].split(/\?(.*)/s);
  const stream = STREAM.exec(path);
  if (!stream) throw new TypeError(`${path} is no stream's address: it ends in /sse or /sse/jobs/<id>`);
  const query = new URLSearchParams(search);
  const wish = stream[1] === undefined ? wished(query, options) : { job_id: decodeURIComponent(stream[1]) };
  const ticket = await bought(options.tickets ?? path.replace(STREAM, "/auth/tickets"), wish, options);
  for (const name of ["client_id", "user_id", "topic"]) query.delete(name);
  if (options.lastEventId) query.set("last_event_id", options.lastEventId);
  query.set("ticket", ticket);
  return `${path}?${query}`;
}

/** What the stream is to hear, by its address and by what is named beside it. */
function wished(query, { clientId, userId, topics = [] }) {
  return {
    client_id: query.get("client_id") || clientId || undefined,
    user_id: userId || query.get("user_id") || undefined,
    topic: [...query.getAll("topic"), ...(typeof topics === "string" ? [topics] : topics)],
  };
}

async function bought(address, wish, { token, fetch: own = fetch }) {
  const headers = { "Content-Type": "application/json", Accept: "application/json" };
  const text = sendable(await asked("token", token));
  if (text) headers.Authorization = `Bearer ${text}`;
  const response = await own(address, { method: "POST", headers, body: JSON.stringify(wish), cache: "no-store" });
  if (!response.ok) throw await problemOf(response);
  return (await response.json()).ticket;
}
