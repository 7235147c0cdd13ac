// A server of plain TCP that gives written answers, for the JavaScript client's tests.
import assert from "node:assert/strict";
import { createServer } from "node:net";
import { Tidegate } from "../../../clients/js/src/index.js";

export const HEAD = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n";
export const HOLD = "\0hold";

export const answer = (status, body = "", ...fields) =>
  [`HTTP/1.1 ${status}`, `Content-Length: ${body.length}`, "Connection: close", ...fields, "", body].join("\r\n");

/** Runs `use(client, seen)` against a server that gives one of `answers` to each connection, the last again. */
export async function scripted(answers, options, use) {
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
  seen.say = (text) => [...asking].at(-1).write(text); // on the newest connection that is left open
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
