import { asked, RequestFault } from "./asking.js";

/** The address and the fields of the next attempt, `{address, headers}`; `token` may be "". Throws RequestFault. */
export async function nextRequest(url, options, { lastEventId, clientId }, token) {
  const headers = fieldsOf(await asked("headers", options.headers));
  if (token) authorize(headers, token);
  headers.set("Accept", "text/event-stream");
  const place = inHeader(lastEventId);
  if (place) headers.set("Last-Event-ID", place);
  const named = { client_id: clientId, user_id: options.userId, last_event_id: place === null ? lastEventId : "" };
  const address = addressOf(url, named, options.topics);
  // What `fetch` would refuse each time anew. One of the caller's own may know more addresses than the platform's.
  if (!options.fetch) usable(address, { ...options.fetchOptions, headers });
  return { address, headers };
}

function fieldsOf(given) {
  try {
    return new Headers(given);
  } catch (error) {
    throw new RequestFault("the headers can't be sent", error, true);
  }
}

function authorize(headers, token) {
  if (headers.has("Authorization")) {
    throw new RequestFault("the headers can't be sent", "token and headers both give Authorization", true);
  }
  headers.set("Authorization", `Bearer ${token}`);
}

/**
 * An id as WHATWG sends it: its UTF-8 bytes, which `Headers` takes as one character each. "" where there is none, null
 * where a field can't hold it: servers refuse control characters there, and blanks at its ends are lost.
 */
function inHeader(id) {
  const bytes = Array.from(new TextEncoder().encode(id), (byte) => String.fromCharCode(byte)).join("");
  return /^(?:[\x21-\x7e\x80-\xff](?:[\t\x20-\x7e\x80-\xff]*[\x21-\x7e\x80-\xff])?)?$/.test(bytes) ? bytes : null;
}

function addressOf(given, named, topics) {
  let url = given;
  if (typeof given === "function") {
    try {
      url = given();
    } catch (error) {
      throw new RequestFault("the address can't be made", error, true);
    }
  }
  const [path, search = ""] = String(url).split("#")[0].split(/\?(.*)/s);
  const query = new URLSearchParams(search);
  if (query.has("client_id")) named.client_id = "";
  for (const [name, value] of Object.entries(named)) if (value) query.set(name, value);
  for (const topic of topics) query.append("topic", topic);
  return `${path}?${query}`;
}

function usable(address, init) {
  try {
    // A stream would be taken from the request that is made of it.
    const body = typeof init.body?.getReader === "function" ? undefined : init.body;
    const { protocol } = new URL(new Request(address, { ...init, body }).url);
    if (!/^https?:$/.test(protocol)) throw new TypeError(`${protocol} is neither http: nor https:`);
  } catch (error) {
    throw new RequestFault("the request can't be made", error, true);
  }
}
