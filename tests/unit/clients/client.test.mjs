// The JavaScript client against answers written byte by byte. Run by test_js_client.py, or by `node --test`.
import assert from "node:assert/strict";
import { createServer } from "node:net";
import { test } from "node:test";
import { backOff, EventParser, Tidegate } from "../../../clients/js/src/index.js";

const HEAD = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n";
const HOLD = "\0hold";

const answer = (status, body = "", ...fields) =>
  [`HTTP/1.1 ${status}`, `Content-Length: ${body.length}`, "Connection: close", ...fields, "", body].join("\r\n");

/** Runs `use(client, seen)` against a server that gives one of `answers` to each connection, the last again. */
async function scripted(answers, options, use) {
  const requests = [];
  const sockets = new Set();
  const server = createServer((socket) => {
    sockets.add(socket);
    socket.on("error", () => {});
    socket.once("data", (data) => {
      const text = answers[Math.min(requests.push(data.toString().toLowerCase()) - 1, answers.length - 1)];
      if (text.endsWith(HOLD)) socket.write(text.slice(0, -HOLD.length));
      else socket.end(text);
    });
  });
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  const client = new Tidegate(`http://127.0.0.1:${server.address().port}/api/sse`, { random: () => 0, ...options });
  const seen = { requests, events: [], states: [], kinds: [] };
  let changed = () => {};
  client.on("event", (event) => (seen.events.push(event), changed()));
  client.on("state", (state) => (seen.states.push(state), changed()));
  for (const kind of ["gap", "closing"]) client.on(kind, () => seen.kinds.push(kind));
  seen.until = async (holds) => {
    while (!holds()) await new Promise((resolve) => (changed = resolve));
  };
  seen.closed = () => seen.until(() => !client.running);
  try {
    await use(client, seen);
  } finally {
    client.close();
    for (const socket of sockets) socket.destroy();
    await new Promise((resolve) => server.close(resolve));
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
  await scripted([HEAD + "retry: 20\n\n", answer("503 Full")], { attempts: 2 }, async (client, seen) => {
    await seen.closed();
    assert.deepEqual(seen.states.filter(({ name }) => name === "waiting").map(({ seconds }) => seconds), [0.02, 0.02]);
    assert.equal(client.state.problem.status, 503);
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
