// The JavaScript client against answers written byte by byte. Run by test_js_client.py, or by `node --test`.
import assert from "node:assert/strict";
import { createServer } from "node:net";
import { mock, test } from "node:test";
import { backOff, EventParser, Tidegate } from "../../../clients/js/src/index.js";

const HEAD = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n";
const HOLD = "\0hold";

const answer = (status, body = "", ...fields) =>
  [`HTTP/1.1 ${status}`, `Content-Length: ${body.length}`, "Connection: close", ...fields, "", body].join("\r\n");

/** Runs `use(client, seen)` against a server that gives one of `answers` to each connection, the last again. */
async function scripted(answers, options, use) {
  const requests = [];
  const sockets = new Set();
  const asking = new Set();
  let changed = () => {};
  const server = createServer((socket) => {
    sockets.add(socket);
    socket.on("error", () => {});
    socket.on("close", () => (asking.delete(socket), changed()));
    socket.once("data", (data) => {
      asking.add(socket);
      const text = answers[Math.min(requests.push(data.toString().toLowerCase()) - 1, answers.length - 1)];
      if (text.endsWith(HOLD)) socket.write(text.slice(0, -HOLD.length));
      else socket.end(text);
    });
  });
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  const url = `http://127.0.0.1:${server.address().port}/api/sse`;
  const client = new Tidegate(url, { random: () => 0, ...options });
  const seen = { url, requests, events: [], states: [], kinds: [] };
  client.on("event", (event) => (seen.events.push(event), changed()));
  client.on("state", (state) => (seen.states.push(state), changed()));
  for (const kind of ["gap", "closing"]) client.on(kind, () => seen.kinds.push(kind));
  seen.until = async (holds) => {
    const late = AbortSignal.timeout(10_000);
    const look = () => changed();
    late.addEventListener("abort", look);
    while (!holds() && !late.aborted) await new Promise((resolve) => (changed = resolve));
    late.removeEventListener("abort", look);
    assert.ok(holds(), `not in time: ${holds}, states ${seen.names()}`);
  };
  seen.names = () => seen.states.map(({ name }) => name).join(" ");
  seen.hangUp = () => asking.forEach((socket) => socket.destroy());
  seen.connections = () => asking.size; // Node connects once more after each abort, and asks nothing there
  seen.closed = () => seen.until(() => !client.running);
  try {
    await use(client, seen);
  } finally {
    client.close();
    for (const socket of sockets) socket.destroy();
    await new Promise((resolve) => server.close(resolve));
  }
}

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

// A timer of more than 24.8 days fires at once.
test("a Retry-After of weeks is waited for", async () => {
  await scripted([answer("503 Full", "", "Retry-After: 3000000")], {}, async (client, seen) => {
    await seen.until(() => client.state.name === "waiting");
    await fetch(seen.url).then((response) => response.text()); // any of its own would have come before
    assert.equal(seen.names(), "connecting waiting");
    assert.equal(seen.requests.length, 2);
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
  const answers = [HEAD + 'event: connected\ndata: {"client_id":"made"}\n\n', HEAD + "data: x\n\n" + HOLD];
  await scripted(answers, { headers: async () => ({ Authorization: tokens.shift() }) }, async (client, seen) => {
    await seen.until(() => seen.events.length === 2);
    assert.doesNotMatch(seen.requests[0], /client_id=/);
    assert.match(seen.requests[1], /client_id=made/);
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
