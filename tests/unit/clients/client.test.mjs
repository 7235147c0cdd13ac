// The JavaScript client against answers written byte by byte. Run by test_js_client.py, or by `node --test`.
import assert from "node:assert/strict";
import { mock, test } from "node:test";
import { backOff, EventParser, Problem, Tidegate } from "../../../clients/js/src/index.js";
import { answer, HEAD, HOLD, scripted } from "./scripted.mjs";

/** Runs `use(page)` in what looks like a page: `page.send` is an event of the window, `page.show` one of the document. */
async function inPage(use) {
  const window = new EventTarget();
  const document = Object.assign(new EventTarget(), { hidden: false });
  Object.assign(globalThis, { document, addEventListener: window.addEventListener.bind(window) });
  const send = (type, facts = {}) => window.dispatchEvent(Object.assign(new Event(type), facts));
  const show = (shown) => {
    document.hidden = !shown;
    document.dispatchEvent(new Event("visibilitychange"));
  };
  try {
    await use({ send, show });
  } finally {
    delete globalThis.document;
    delete globalThis.addEventListener;
  }
}

test("a frame cut in the middle is not delivered and the next connection resumes before it", async () => {
  const answers = [HEAD + "id: e-1\ndata: one\n\nid: e-2\ndata: tw", HEAD + "id: e-2\ndata: two\n\n" + HOLD];
  await scripted(answers, { topics: ["a", "b.>"] }, async (client, seen) => {
    await seen.until(() => seen.events.length === 2);
    assert.deepEqual(seen.events.map((event) => event.data), ["one", "two"]);
    assert.equal(client.lastEventId, "e-2");
    assert.equal(client.reconnects, 1);
    assert.match(seen.requests[0], /topic=a&topic=b\.%3e/);
    assert.match(seen.requests[1], /last-event-id: e-1/);
  });
});

for (const status of [401, 403, 404, 422]) {
  test(`a ${status} stops for good with the problem`, async () => {
    await scripted([answer(`${status} No`, '{"title":"Not you","detail":"no token"}')], {}, async (client, seen) => {
      await seen.closed();
      const { title, detail, status: told } = client.state.problem;
      assert.deepEqual([title, detail, told, seen.requests.length], ["Not you", "no token", status, 1]);
    });
  });
}

test("a 204 ends without an error", async () => {
  await scripted([answer("204 No Content")], {}, async (client, seen) => {
    await seen.closed();
    assert.equal(client.state.problem, undefined);
    assert.equal(seen.requests.length, 1);
  });
});

for (const status of [408, 425, 429, 500, 503]) {
  test(`a ${status} is tried again, not before Retry-After`, async () => {
    const answers = [answer(`${status} Wait`, "", "Retry-After: 1"), HEAD + "data: x\n\n" + HOLD];
    await scripted(answers, { random: () => 0.1 }, async (client, seen) => {
      await seen.until(() => seen.events.length === 1);
      assert.deepEqual(seen.states.filter(({ name }) => name === "waiting").map(({ seconds }) => seconds), [1.05]);
    });
  });
}

test("the stream's own retry is a lower bound and attempts are limited", async () => {
  await scripted([HEAD + "retry: 20\n\n", answer("503 Full")], { attempts: 3 }, async (client, seen) => {
    await seen.closed();
    assert.equal(seen.requests.length, 3);
    assert.deepEqual(seen.states.filter(({ name }) => name === "waiting").map(({ seconds }) => seconds), [0.02, 0.02]);
    assert.equal(client.state.problem.status, 503);
  });
});

test("the gateway's own closing is no attempt that failed", async () => {
  const closing = HEAD + 'retry: 10\nevent: closing\ndata: {"reason":"drain"}\n\n';
  const answers = [closing, closing, closing, HEAD + "data: x\n\n" + HOLD];
  await scripted(answers, { attempts: 1 }, async (client, seen) => {
    await seen.until(() => seen.events.length === 4);
  });
});

test("a stream that was made anew is come back to with the last id, and its gap and events come", async () => {
  const closing = HEAD + 'id: a-7\ndata: x\n\nretry: 10\nevent: closing\ndata: {"reason":"feed","reconnect":true}\n\n';
  const again = HEAD + 'id: b-0\nevent: connected\ndata: {}\n\nevent: gap\ndata: {"reason":"epoch"}\n\n';
  await scripted([closing, again + "id: b-1\ndata: y\n\n" + HOLD], {}, async (client, seen) => {
    await seen.until(() => seen.events.length === 5);
    assert.deepEqual(seen.kinds, ["closing", "gap"]);
    assert.match(seen.requests[1], /last-event-id: a-7/);
    assert.equal(client.lastEventId, "b-1");
  });
});

// A number of four hundred digits was waited for for ever, and any text with a year in it was a date.
const LATER = new Date(Date.now() + 3_600_000).toUTCString();
const RETRY_AFTER = [
  ["3000000", 86_400],
  ["9".repeat(400), 86_400],
  ["Fri, 31 Dec 9999 23:59:59 GMT", 86_400],
  ["-5", 0],
  ["1e9", 0],
  ["1.5", 0],
  ["soon 2099", 0],
  ["Fri, 99 Dec 2099 23:59:59 GMT", 0],
  ["Sunday, 06-Nov-94 08:49:37 GMT", 0],
  ["Sun Nov  6 08:49:37 1994", 0],
];

for (const [value, seconds] of RETRY_AFTER) {
  test(`a Retry-After of ${value.slice(0, 40)} is a wait of ${seconds} s`, async () => {
    await scripted([answer("503 Full", "", `Retry-After: ${value}`), HOLD], {}, async (client, seen) => {
      await seen.until(() => client.state.name === "waiting");
      assert.equal(client.state.seconds, seconds);
    });
  });
}

test("a Retry-After that is a date is waited for", async () => {
  await scripted([answer("503 Full", "", `Retry-After: ${LATER}`)], {}, async (client, seen) => {
    await seen.until(() => client.state.name === "waiting");
    assert.ok(client.state.seconds > 3_500 && client.state.seconds <= 3_600, `${client.state.seconds}`);
  });
});

test("a retry of the stream's own is waited for, a day at most", async () => {
  for (const [retry, seconds] of [["7200000", 7_200], ["9".repeat(400), 86_400], ["-1", 0], ["1e9", 0], ["٣", 0]]) {
    await scripted([HEAD + `retry: ${retry}\n\n`], {}, async (client, seen) => {
      await seen.until(() => client.state.name === "waiting");
      assert.equal(client.state.seconds, seconds);
      assert.ok(Number.isFinite(new Date(client.state.until).getTime()));
    });
  }
});

// A listener for a publisher's own type was taken and never called.
test("a listener hears the events of its type, and every one is an event", async () => {
  const types = ["note", "connected", "gap", "closing", "event", "state", "message"];
  const stream = types.map((type) => `event: ${type}\ndata: {"of":"${type}"}\n\n`).join("");
  await scripted([HEAD + stream + HOLD], {}, async (client, seen) => {
    const heard = [];
    for (const type of types.filter((type) => type !== "event" && type !== "state")) {
      client.on(type, (event) => heard.push([type, event.type, event.data]));
    }
    const removed = client.on("note", () => heard.push("removed"));
    removed();
    await seen.until(() => seen.events.length === types.length);
    const own = types.filter((type) => type !== "event" && type !== "state");
    assert.deepEqual(heard, own.map((type) => [type, type, `{"of":"${type}"}`]));
    assert.deepEqual(seen.events.map(({ type }) => type), types);
    assert.ok(seen.states.every(({ name }) => name));
  });
});

// With `topic` for `topics` it listened to nothing, and `fetchOptions.headers` were never sent.
test("an option that there is not is said at once", () => {
  for (const options of [{ topic: ["a"] }, { fetchOptions: { headers: { a: "b" } } }, { fetchOptions: { signal: AbortSignal.abort() } }]) {
    assert.throws(() => new Tidegate("http://127.0.0.1:9/", options), TypeError);
  }
});

test("what can't be listened to is said at once", () => {
  const client = new Tidegate("http://127.0.0.1:9/");
  for (const [type, listener] of [["note"], ["", () => {}], [null, () => {}], ["note", {}]]) {
    assert.throws(() => client.on(type, listener), TypeError);
  }
  client.close();
});

// Each was tried again for ever as a server that can't be reached.
const FAULTY = [
  ["a relative address", () => "/api/sse", {}, /parse URL|Invalid URL/],
  ["an address of another scheme", () => "ftp://127.0.0.1/", {}, /http/],
  ["an address that holds a password", () => "http://a:b@127.0.0.1/", {}, /credentials/],
  ["an address that can't be made", () => () => { throw new Error("no address yet"); }, {}, /no address yet/],
  ["a header's value that can't be sent", (url) => url, { headers: { "X-Name": "a\nb" } }, /header/i],
  ["a header's value outside of Latin-1", (url) => url, { headers: { "X-Name": "名" } }, /ByteString|header/i],
  ["a header's name that can't be sent", (url) => url, { headers: () => ({ "a b": "c" }) }, /header/i],
  ["headers() that throws", (url) => url, { headers: () => { throw new Error("no token"); } }, /no token/],
  ["headers() with a mistake in it", (url) => url, { headers: async () => missing }, /missing is not defined/],
  ["headers() that was refused", (url) => url, { headers: async () => { throw new Problem({ title: "Not you", status: 401 }); } }, /Not you/],
  ["a method that fetch refuses", (url) => url, { fetchOptions: { method: "TRACE" } }, /TRACE/],
];

for (const [what, address, options, cause] of FAULTY) {
  test(`${what} ends the client with the cause`, async () => {
    await scripted([HEAD + HOLD], {}, async (unused, seen) => {
      const client = new Tidegate(address(seen.url), options);
      const states = [];
      await new Promise((resolve) => client.on("state", (state) => (states.push(state), client.running || resolve())));
      assert.deepEqual(states.map(({ name }) => name), ["connecting", "closed"]);
      assert.match(client.state.reason, cause);
      assert.match(client.state.problem.title, cause);
      assert.ok(client.state.problem.cause instanceof Error);
    });
  });
}

test("every attempt that failed tells its cause", async () => {
  const headers = [async () => { throw new Error("no token for now"); }, () => ({})];
  const broken = HEAD.replace("Connection: close", "Transfer-Encoding: chunked") + "1\r\n:\r\nno size\r\n";
  const options = { headers: () => (headers.length > 1 ? headers.shift() : headers[0])() };
  const answers = [answer("503 Full", '{"title":"Full up"}'), broken, HEAD + "data: x\n\n"];
  await scripted(answers, options, async (client, seen) => {
    await seen.until(() => seen.names().endsWith("open waiting"));
    const waiting = seen.states.filter(({ name }) => name === "waiting");
    const causes = [/no token for now/, /^Full up$/, /^the connection broke: ./, /the stream ended/];
    for (const [at, cause] of causes.entries()) assert.match(waiting[at].reason, cause);
    assert.deepEqual(waiting.map(({ problem }) => problem?.status), [0, 503, 0, undefined]);
    assert.match(waiting[0].problem.cause.message, /no token for now/);
  });
});

test("a server that can't be reached is told with what the platform says of it", async () => {
  const client = new Tidegate("http://127.0.0.1:9/", { attempts: 1 }); // the port of discard, which fetch refuses too
  await new Promise((resolve) => client.on("state", () => client.running || resolve()));
  assert.match(client.state.reason, /the server can't be reached: .*(bad port|ECONNREFUSED)/);
});

for (const thrown of [undefined, null, "a text", 7]) {
  test(`a fetch of the caller's own may throw ${thrown}`, async () => {
    const tried = [];
    const own = async (...given) => (tried.push(given) > 1 ? new Promise(() => {}) : Promise.reject(thrown));
    const client = new Tidegate("/relative", { fetch: own, random: () => 0 });
    await new Promise((resolve) => client.on("state", ({ name }) => name === "waiting" && resolve()));
    assert.match(client.state.reason, new RegExp(`${thrown}`));
    client.close();
  });
}

test("one topic may be a text", async () => {
  await scripted([HEAD + "data: x\n\n" + HOLD], { topics: "prices" }, async (client, seen) => {
    await seen.until(() => seen.events.length === 1);
    assert.match(seen.requests[0], /^get \/api\/sse\?topic=prices http/);
  });
});

// A field's value is Latin-1 for fetch: the id made an error of every attempt.
const IDS = [
  ["é-1", "last-event-id: é-1"],
  ["名前 1", "last-event-id: 名前 1"],
  ["😀", "last-event-id: 😀"],
  [" e", "last_event_id=+e"],
  ["e\t", "last_event_id=e%09"],
  ["e\u0001", "last_event_id=e%01"],
  ["\u007f", "last_event_id=%7f"],
];

for (const [id, sent] of IDS) {
  test(`an id of ${JSON.stringify(id)} is sent back as it is`, async () => {
    await scripted([HEAD + `id: ${id}\ndata: x\n\n`, HEAD + "data: y\n\n" + HOLD], {}, async (client, seen) => {
      await seen.until(() => seen.events.length === 2);
      assert.equal(client.lastEventId, id);
      assert.ok(seen.requests[1].includes(sent), seen.requests[1]);
    });
  });
}

for (const type of ["Text/Event-Stream", "TEXT/EVENT-STREAM;charset=utf-8", "text/event-stream ; charset=UTF-8"]) {
  test(`an answer of ${type} is an event stream`, async () => {
    await scripted([HEAD.replace("text/event-stream", type) + "data: x\n\n" + HOLD], {}, async (client, seen) => {
      await seen.until(() => seen.events.length === 1);
    });
  });
}

test("an answer of a type that only begins like an event stream is none", async () => {
  await scripted([HEAD.replace("text/event-stream", "text/event-streams")], {}, async (client, seen) => {
    await seen.closed();
    assert.match(client.state.reason, /no event stream/);
  });
});

// Node's fetch hangs on it, and tells nobody of the abort: the client was "connecting" for ever.
test("a body that can't be decoded is given up as one that is silent", async () => {
  const broken = HEAD.replace("Connection: close", "Content-Encoding: gzip") + "this is no gzip";
  for (const answer of [broken, broken + HOLD]) {
    await scripted([answer, HEAD + "data: x\n\n" + HOLD], { silence: 0.2 }, async (client, seen) => {
      await seen.until(() => seen.events.length === 1);
      assert.equal(seen.states[1].name, "waiting");
    });
  }
});

test("a refusal whose body can't be decoded is one all the same", async () => {
  const head = "HTTP/1.1 403 No\r\nContent-Encoding: gzip\r\nContent-Length: 100\r\n\r\nthis is no gzip";
  await scripted([head + HOLD], {}, async (client, seen) => {
    await seen.until(() => seen.requests.length === 1);
    const later = Date.now() + 16_000;
    const clock = mock.method(Date, "now", () => later);
    await seen.closed();
    clock.mock.restore();
    assert.deepEqual([client.state.reason, seen.requests.length], ["403 No", 1]);
  });
});

// A refusal counts by its head: its body may stall, break off or never end.
for (const [what, body] of [["is cut off", "{\"title\":"], ["is endless", "x".repeat(1_000_000)]]) {
  test(`a refusal whose body ${what} is one all the same`, async () => {
    const head = "HTTP/1.1 403 No\r\nContent-Length: 10000000\r\n\r\n";
    await scripted([head + body + (what === "is endless" ? HOLD : "")], {}, async (client, seen) => {
      await seen.closed();
      assert.deepEqual([client.state.reason, client.state.problem.status], ["403 No", 403]);
      assert.equal(seen.requests.length, 1);
    });
  });
}

test("odd facts of a server do not become the client's", async () => {
  const connected = HEAD + 'event: connected\ndata: {"client_id":{"a":1}}\n\n';
  const refused = answer("403 No", '{"title":{"a":1},"detail":[1],"field":7}');
  await scripted([connected, refused], {}, async (client, seen) => {
    await seen.closed();
    assert.equal(client.clientId, "");
    assert.equal(client.state.reason, "403 No");
    assert.deepEqual([client.state.problem.detail, client.state.problem.field], ['{"title":{"a":1},"detail":[1],"field":7}', ""]);
  });
});

// With a limit of 15 s, which an attempt has too, it was taken for one that had never been open.
test("a connection that lived ten seconds makes the back-off small again", async () => {
  const connected = HEAD + 'event: connected\ndata: {}\n\n' + HOLD;
  const answers = [answer("503 Full"), connected, HEAD + "data: x\n\n" + HOLD];
  await scripted(answers, { silence: 15, random: () => 0.1 }, async (client, seen) => {
    await seen.until(() => client.state.name === "open");
    const later = Date.now() + 11_000;
    const clock = mock.method(Date, "now", () => later);
    seen.hangUp();
    await seen.until(() => client.state.name === "waiting");
    clock.mock.restore();
    assert.deepEqual(seen.states.filter(({ name }) => name === "waiting").map(({ seconds }) => seconds), [0.05, 0.05]);
  });
});

// Nothing watched the function, and no abort reached it.
test("headers that never come are given up with their attempt", async () => {
  const headers = [() => new Promise(() => {}), () => ({})];
  await scripted([HEAD + "data: x\n\n" + HOLD], { headers: () => headers.shift()() }, async (client, seen) => {
    await seen.until(() => headers.length === 1);
    client.wake(true);
    await seen.until(() => seen.events.length === 1);
  });
});

test("headers that come too late are told as the cause", async () => {
  const headers = [() => new Promise(() => {}), () => ({})];
  await scripted([HEAD + "data: x\n\n" + HOLD], { headers: () => headers.shift()() }, async (client, seen) => {
    await seen.until(() => headers.length === 1);
    const later = Date.now() + 16_000;
    const clock = mock.method(Date, "now", () => later);
    await seen.until(() => client.state.name === "waiting");
    clock.mock.restore();
    assert.equal(client.state.reason, "headers() gave nothing in time");
  });
});

test("topics that can be gone through once are asked for again by the next connection", async () => {
  const answers = [HEAD + "data: x\n\n", HEAD + "data: x\n\n" + HOLD];
  await scripted(answers, { topics: ["a", "b"].values() }, async (client, seen) => {
    await seen.until(() => seen.events.length === 2);
    for (const request of seen.requests) assert.match(request, /topic=a&topic=b/);
  });
});

test("a silent connection is replaced", async () => {
  const answers = [HEAD + ": heartbeat\n\n" + HOLD, HEAD + "data: x\n\n" + HOLD];
  await scripted(answers, { silence: 0.2 }, async (client, seen) => {
    await seen.until(() => seen.events.length === 1);
    assert.equal(seen.states[1].reason, "nothing was heard for too long");
  });
});

test("gap and closing are of their own kind and closing for good ends the stream", async () => {
  const text = HEAD + 'event: gap\ndata: {}\n\nevent: closing\ndata: {"reconnect":false}\n\n';
  await scripted([text], {}, async (client, seen) => {
    await seen.closed();
    assert.deepEqual(seen.kinds, ["gap", "closing"]);
    assert.equal(seen.requests.length, 1);
  });
});

test("a client id made by the gateway is kept and headers are asked for each time", async () => {
  const tokens = ["first", "second"];
  const told = '{"client_id":"made","listening":["broadcast","client:made"]}';
  const answers = [HEAD + `event: connected\ndata: ${told}\n\n`, HEAD + "data: x\n\n" + HOLD];
  await scripted(answers, { headers: async () => ({ Authorization: tokens.shift() }) }, async (client, seen) => {
    await seen.until(() => seen.events.length === 2);
    assert.doesNotMatch(seen.requests[0], /client_id=/);
    assert.match(seen.requests[1], /client_id=made/);
    assert.deepEqual(client.listening, ["broadcast", "client:made"]);
    assert.match(seen.requests[0], /authorization: first/);
    assert.match(seen.requests[1], /authorization: second/);
  });
});

// rest() once gave the socket back only until the back-off was over.
test("a client at rest has no socket until it is woken and goes on where it was", async () => {
  const answers = [HEAD + "id: e-1\ndata: one\n\n" + HOLD];
  await scripted(answers, {}, async (client, seen) => {
    await seen.until(() => seen.events.length === 1);
    client.rest();
    await seen.until(() => seen.connections() === 0 && client.state.name === "resting");
    client.wake();
    await seen.until(() => seen.events.length === 2);
    assert.equal(seen.names(), "connecting open resting connecting open");
    assert.match(seen.requests[1], /last-event-id: e-1/);
  });
});

test("a client that is put to rest while it waits makes no attempt when the wait is over", async () => {
  const answers = [HEAD + "retry: 20\n\n", HEAD + "data: x\n\n" + HOLD];
  await scripted(answers, {}, async (client, seen) => {
    await seen.until(() => client.state.name === "waiting");
    client.rest();
    await seen.until(() => client.state.name === "resting");
    assert.equal(seen.requests.length, 1);
    client.wake();
    await seen.until(() => seen.events.length === 1);
  });
});

test("a client at rest can be closed", async () => {
  await scripted([HEAD + "data: x\n\n" + HOLD], {}, async (client, seen) => {
    client.rest();
    await seen.until(() => client.state.name === "resting");
    client.close();
    assert.equal(seen.names(), "resting closed");
    assert.equal(seen.requests.length, 0);
  });
});

test("a page that is kept for the way back has no socket until it is shown again", async () => {
  await inPage(async (page) => {
    await scripted([HEAD + "data: x\n\n" + HOLD], {}, async (client, seen) => {
      await seen.until(() => seen.events.length === 1);
      page.send("pagehide", { persisted: true });
      await seen.until(() => seen.connections() === 0);
      page.send("pageshow", { persisted: true });
      await seen.until(() => seen.events.length === 2);
    });
  });
});

test("back on the network the connection of before is replaced at once and resumes", async () => {
  await inPage(async (page) => {
    await scripted([HEAD + "id: e-1\ndata: x\n\n" + HOLD], {}, async (client, seen) => {
      await seen.until(() => seen.events.length === 1);
      page.send("online");
      await seen.until(() => seen.events.length === 2);
      assert.equal(seen.names(), "connecting open connecting open");
      assert.match(seen.requests[1], /last-event-id: e-1/);
    });
  });
});

test("a page that is shown goes on at once with what waits, and one that is hidden does not", async () => {
  await inPage(async (page) => {
    const answers = [HEAD + "retry: 60000\n\n", HEAD + "data: x\n\n" + HOLD];
    await scripted(answers, {}, async (client, seen) => {
      await seen.until(() => client.state.name === "waiting");
      page.show(false);
      assert.equal(client.state.name, "waiting");
      page.show(true);
      await seen.until(() => seen.events.length === 1);
    });
  });
});

test("a page that is shown keeps a connection that lives and replaces one that fell silent", async () => {
  await inPage(async (page) => {
    // An option that is named and not given has its default.
    await scripted([HEAD + "data: x\n\n" + HOLD], { silence: undefined }, async (client, seen) => {
      await seen.until(() => seen.events.length === 1);
      page.show(true);
      assert.equal(seen.connections(), 1);
      const late = Date.now() + 46_000; // as after a machine's sleep: no timer has run meanwhile
      const clock = mock.method(Date, "now", () => late);
      page.show(true);
      clock.mock.restore();
      await seen.until(() => seen.events.length === 2);
      assert.equal(seen.names(), "connecting open connecting open");
    });
  });
});

test("neither the network nor the page that is shown cuts a Retry-After short", async () => {
  await inPage(async (page) => {
    const answers = [answer("503 Full", "", "Retry-After: 1"), HEAD + "data: x\n\n" + HOLD];
    await scripted(answers, {}, async (client, seen) => {
      await seen.until(() => client.state.name === "waiting");
      const began = Date.now();
      page.send("online");
      page.show(true);
      page.send("pagehide", { persisted: true });
      page.send("pageshow", { persisted: true });
      await seen.until(() => seen.events.length === 1);
      assert.ok(Date.now() - began > 900);
      assert.equal(seen.requests.length, 2);
    });
  });
});

test("a closed client does not follow its page any more", async () => {
  await inPage(async (page) => {
    await scripted([HEAD + "data: x\n\n" + HOLD], {}, async (client, seen) => {
      await seen.until(() => seen.events.length === 1);
      const called = [];
      client.wake = client.rest = () => called.push("called");
      page.send("online");
      assert.equal(called.length, 1);
      client.close();
      for (const type of ["online", "pagehide", "pageshow"]) page.send(type);
      page.show(true);
      assert.equal(called.length, 1);
    });
  });
});

test("the window doubles to its cap and the bound is added", () => {
  assert.deepEqual([0, 1, 2, 5, 6, 60].map((n) => backOff(n, 1, () => 1)), [1.5, 2, 3, 17, 31, 31]);
});

test("the parser gives the same events wherever the stream is cut", () => {
  const stream = ":x\r\nid: 1\rdata:a\r\ndata:  é\n\nretry: 12\nid: 0\0\nevent: t\ndata\n\ndata: cut";
  for (const size of [1, 2, 3, 7, stream.length]) {
    const events = [];
    const parser = new EventParser({ onEvent: (event) => events.push([event.id, event.type, event.data]), onRetry: () => {} });
    for (let at = 0; at < stream.length; at += size) parser.feed(stream.slice(at, at + size));
    assert.deepEqual(events, [["1", "message", "a\n é"], [null, "t", ""]]);
  }
});
