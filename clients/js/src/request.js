import { PASSING } from "./problem.js";

/**
 * What keeps an attempt from being made at all. `final`: another attempt can't go better, since what is wrong was given
 * by the caller. `cause` is what was thrown.
 */
export class RequestFault extends Error {
  constructor(text, cause, final) {
    super(`${text}: ${cause?.message ?? cause}`, { cause });
    this.final = final;
  }
}

/** The address and the fields of the next attempt, `{address, headers}`. Throws RequestFault. */
export async function nextRequest(url, options, { lastEventId, clientId }) {
  const headers = await made(options.headers);
  headers.set("Accept", "text/event-stream");
  const place = inHeader(lastEventId);
  if (place) headers.set("Last-Event-ID", place);
  const named = { client_id: clientId, user_id: options.userId, last_event_id: place === null ? lastEventId : "" };
  const address = addressOf(url, named, options.topics);
  // What `fetch` would refuse each time anew. One of the caller's own may know more addresses than the platform's.
  if (!options.fetch) usable(address, { ...options.fetchOptions, headers });
  return { address, headers };
}

async function made(given) {
  let fields = given;
  if (typeof given === "function") {
    try {
      fields = given();
    } catch (error) {
      throw new RequestFault("headers() failed", error, true);
    }
    // A token is often fetched: where that fails, it may go better the next time.
    fields = await Promise.resolve(fields).catch((error) => {
      throw new RequestFault("headers() failed", error, error instanceof ReferenceError || refuses(error));
    });
  }
  try {
    return new Headers(fields);
  } catch (error) {
    throw new RequestFault("the headers can't be sent", error, true);
  }
}

/** Whether `error` is the answer of a server that would give it again, as `problemOf` makes it. */
function refuses(error) {
  return error?.status >= 400 && error.status < 500 && !PASSING.has(error.status);
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
