// The JavaScript client's token: when it is asked for, what is done with it, and how a refusal is told.
import assert from "node:assert/strict";
import { createServer } from "node:http";
import { mock, test } from "node:test";
import { Problem, Tidegate, withTicket } from "../../../clients/js/src/index.js";
import { answer, HEAD, HOLD, scripted } from "./scripted.mjs";

const OPEN = HEAD + 'event: connected\ndata: {"client_id":"c"}\n\nid: e-1\ndata: one\n\n';
const EXPIRING = "event: expiring\ndata: {}\n\n";

const refused = (status, facts) => answer(`${status} No`, JSON.stringify({ title: "No", ...facts }));

/** t1, t2, t3 … */
function counting() {
  let number = 0;
  return () => `t${(number += 1)}`;
}

/** The token of each request, "" for none. */
const given = ({ requests }) => requests.map((text) => /^authorization: bearer (.*)\r$/m.exec(text)?.[1] ?? "");

/** Says that the token expires, on a connection that is eleven seconds old. */
async function expire(seen, events = 2) {
  await seen.until(() => seen.events.length === events);
  const now = Date.now;
  const clock = mock.method(Date, "now", () => now() + 11_000);
  seen.say(EXPIRING);
  await seen.until(() => seen.events.length > events);
  clock.mock.restore();
}

for (const form of ["plain", "async"]) {
  test(`a function (${form}) is asked before every attempt`, async () => {
    const next = counting();
    const token = form === "async" ? async () => next() : next;
    const cut = HEAD + "data: x\n\n";
    await scripted([answer("503 Full"), cut, cut + HOLD], { token }, async (client, seen) => {
      await seen.until(() => seen.events.length === 2);
      assert.deepEqual(given(seen), ["t1", "t2", "t3"]);
    });
  });
}

for (const [token, sent] of [["tgk_shop_x", "tgk_shop_x"], ["t\n", "t"], ["", ""], [() => null, ""], [undefined, ""]]) {
  test(`the token ${token} is sent as it is, or none`, async () => {
    await scripted([OPEN + HOLD], { token }, async (client, seen) => {
      await seen.until(() => seen.events.length === 2);
      assert.deepEqual(given(seen), [sent]);
    });
  });
}

for (const [status, facts] of [
  [401, { type: "urn:tidegate:problem:unauthenticated", reason: "signature", needed: "", detail: "bad" }],
  [403, { type: "urn:tidegate:problem:forbidden", reason: "", needed: "subscribe topic:a.b", detail: "not yours" }],
]) {
  test(`a ${status} ends the client and says what would do`, async () => {
    await scripted([refused(status, facts)], { token: counting() }, async (client, seen) => {
      await seen.closed();
      const { problem } = client.state;
      assert.ok(problem instanceof Problem);
      const { type, reason, needed, detail } = problem;
      assert.deepEqual({ type, reason, needed, detail }, facts);
      assert.deepEqual([problem.status, given(seen)], [status, ["t1"]]);
    });
  });
}

test("a token that has expired is asked for once more, and anew after a connection", async () => {
  const late = refused(401, { reason: "expired" });
  await scripted([late, OPEN, late, OPEN + HOLD], { token: counting() }, async (client, seen) => {
    await seen.until(() => seen.events.length === 4);
    assert.deepEqual(given(seen), ["t1", "t2", "t3", "t4"]);
  });
});

test("a token that has expired again ends the client", async () => {
  await scripted([refused(401, { reason: "expired" })], { token: counting() }, async (client, seen) => {
    await seen.closed();
    assert.deepEqual([client.state.problem.reason, given(seen)], ["expired", ["t1", "t2"]]);
  });
});

test("a token that can't be another is not tried twice", async () => {
  await scripted([refused(401, { reason: "expired" })], { token: "t" }, async (client, seen) => {
    await seen.closed();
    assert.deepEqual(given(seen), ["t"]);
  });
});

// An identity provider that has a new key: a gateway fetches it in the background, and refuses meanwhile.
test("a token whose key is not known yet is tried once more after a while", async () => {
  await scripted([refused(401, { reason: "kid" })], { token: counting() }, async (client, seen) => {
    await seen.closed();
    assert.deepEqual(seen.states.filter(({ name }) => name === "waiting").map(({ seconds }) => seconds), [2]);
    assert.deepEqual(given(seen), ["t1", "t2"]);
  });
});

test("a stream whose token expires goes on with another and loses and repeats nothing", async () => {
  const again = HEAD + "event: connected\ndata: {}\n\nid: e-3\ndata: three\n\n";
  const last = HEAD + "id: e-4\ndata: four\n\n" + HOLD;
  const answers = [OPEN + "id: e-2\ndata: two\n\n" + HOLD, again, last];
  await scripted(answers, { token: counting() }, async (client, seen) => {
    await expire(seen, 3);
    await seen.until(() => client.lastEventId === "e-4");
    const told = seen.events.filter(({ type }) => type === "message").map(({ data }) => data);
    assert.deepEqual(told, ["one", "two", "three", "four"]);
    assert.deepEqual(given(seen), ["t1", "t2", "t3"]);
    assert.match(seen.requests[1], /client_id=c[ &][^]*last-event-id: e-2/);
    assert.match(seen.names(), /^connecting open connecting open waiting/);
  });
});

for (const [what, token] of [
  ["a text", () => "t"],
  ["the same token", () => () => "t"],
  ["no token", () => once("t", () => null)],
  ["a function that fails", () => once("t", async () => Promise.reject(new TypeError("away")))],
]) {
  test(`a stream that has ${what} lasts as long as its own`, async () => {
    await scripted([OPEN + HOLD], { token: token() }, async (client, seen) => {
      await expire(seen);
      seen.say("data: more\n\n");
      await seen.until(() => seen.events.length === 4);
      assert.deepEqual([client.state.name, given(seen)], ["open", ["t"]]);
    });
  });
}

/** Gives `first`, and then what `later` gives. */
function once(first, later) {
  let asked = false;
  return () => (asked ? later() : ((asked = true), first));
}

test("a token that expires soon after a connection is not asked for in a circle", async () => {
  await scripted([OPEN + EXPIRING + HOLD], { token: counting() }, async (client, seen) => {
    await seen.until(() => seen.events.length === 3);
    seen.say("data: more\n\n");
    await seen.until(() => seen.events.length === 4);
    assert.deepEqual([client.state.name, given(seen)], ["open", ["t1"]]);
  });
});

test("what the function throws while the token expires ends the client", async () => {
  const token = once("t", () => {
    throw new TypeError("nobody is logged in");
  });
  await scripted([OPEN + HOLD], { token }, async (client, seen) => {
    await expire(seen);
    await seen.closed();
    assert.equal(client.state.problem.cause.message, "nobody is logged in");
    assert.deepEqual(given(seen), ["t"]);
  });
});

// It was taken for the next attempt's token, which may be the older one by then.
test("a token that comes when its connection is gone is not used", async () => {
  const waiting = [];
  const tokens = ["t1", new Promise((resolve) => waiting.push(resolve)), "t3", "t4"];
  await scripted([OPEN + HOLD], { token: () => tokens.shift() }, async (client, seen) => {
    await expire(seen);
    assert.equal(tokens.length, 2);
    seen.hangUp();
    await seen.until(() => seen.events.length === 5);
    waiting[0]("t2");
    await new Promise((resolve) => setImmediate(resolve));
    seen.hangUp();
    await seen.until(() => seen.events.length === 7);
    assert.deepEqual(given(seen), ["t1", "t3", "t4"]);
  });
});

test("the end of a token is come back from with another, and a revocation is not", async () => {
  const closing = (reason, reconnect) => `retry: 10\nevent: closing\ndata: ${JSON.stringify({ reason, reconnect })}\n\n`;
  const answers = [OPEN + closing("token_expired", true), OPEN + closing("revoked", false)];
  await scripted(answers, { token: counting() }, async (client, seen) => {
    await seen.closed();
    assert.deepEqual(given(seen), ["t1", "t2"]);
  });
});

for (const token of ["a b", "ü", "a\r\nHost: evil", 5, {}]) {
  test(`a token that is ${JSON.stringify(token)} ends the client and is not told`, async () => {
    await scripted([OPEN], { token: () => token }, async (client, seen) => {
      await seen.closed();
      assert.match(client.state.reason, /^the token can't be sent: it has to be a text without blanks, of ASCII alone$/);
      assert.deepEqual(seen.requests, []);
    });
  });
}

test("a token that is neither a text nor a function is said at once", () => {
  assert.throws(() => new Tidegate("/api/sse", { token: 5 }), TypeError);
});

test("token and headers do not both say who asks", async () => {
  const options = { token: "t", headers: { authorization: "Bearer u" } };
  await scripted([OPEN], options, async (client, seen) => {
    await seen.closed();
    assert.match(client.state.reason, /both give Authorization/);
    assert.deepEqual(seen.requests, []);
  });
});

test("a token does not follow a redirect to another origin", async () => {
  await scripted([OPEN + HOLD], { token: "other" }, async (_, other) => {
    const moved = answer("307 Moved", "", `Location: ${other.url}`);
    await other.until(() => other.events.length === 2);
    await scripted([moved], { token: "t" }, async (client, seen) => {
      await seen.until(() => seen.events.length === 2);
      assert.deepEqual([given(seen), given(other)], [["t"], ["other", ""]]);
    });
  });
});

test("a token that never comes is given up with its attempt", async () => {
  const tokens = [() => new Promise(() => {}), () => "t"];
  await scripted([OPEN + HOLD], { token: () => tokens.shift()() }, async (client, seen) => {
    await seen.until(() => tokens.length === 1);
    const later = Date.now() + 16_000;
    const clock = mock.method(Date, "now", () => later);
    await seen.until(() => client.state.name === "waiting");
    clock.mock.restore();
    assert.equal(client.state.reason, "token() gave nothing in time");
    await seen.until(() => client.state.name === "open");
  });
});

/** Runs `use(url, asked)` beside a server that answers each request with `status` and `facts`; `asked` is what came. */
async function selling(status, facts, use) {
  const asked = [];
  const server = createServer((request, response) => {
    let body = "";
    request.on("data", (piece) => (body += piece));
    request.on("end", () => {
      asked.push({ address: `${request.method} ${request.url}`, by: request.headers.authorization, body: JSON.parse(body) });
      response.writeHead(status, { "Content-Type": "application/json" }).end(JSON.stringify(facts));
    });
  });
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  try {
    await use(`http://127.0.0.1:${server.address().port}`, asked);
  } finally {
    server.closeAllConnections();
    await new Promise((resolve) => server.close(resolve));
  }
}

for (const [path, options, body, address, shop = "/api/auth/tickets"] of [
  ["/api/sse", { topics: ["a", "b.>"], clientId: "c", userId: "u" }, { client_id: "c", user_id: "u", topic: ["a", "b.>"] }, "/api/sse?ticket=T-1"],
  ["/api/sse", {}, { topic: [] }, "/api/sse?ticket=T-1"],
  ["/api/sse?topic=a&client_id=c&x_page=1", { topics: "b", lastEventId: "e-1" }, { client_id: "c", topic: ["a", "b"] }, "/api/sse?x_page=1&last_event_id=e-1&ticket=T-1"],
  ["/base/api/sse/jobs/j1", {}, { job_id: "j1" }, "/base/api/sse/jobs/j1?ticket=T-1", "/base/api/auth/tickets"],
]) {
  test(`a ticket for ${path} is for what was named, and the address bears the ticket alone`, async () => {
    await selling(201, { ticket: "T-1", expires: 9 }, async (url, asked) => {
      const made = await withTicket(url + path, { token: async () => "t", ...options });
      assert.equal(made, url + address);
      assert.deepEqual(asked, [{ address: `POST ${shop}`, by: "Bearer t", body }]);
    });
  });
}

test("tickets may be made elsewhere, and a refusal is the problem", async () => {
  await selling(403, { title: "Not allowed", needed: "subscribe topic:a" }, async (url, asked) => {
    const options = { token: "t", topics: ["a"], tickets: `${url}/elsewhere` };
    await assert.rejects(withTicket("http://gateway.invalid/api/sse", options), ({ status, needed }) => {
      assert.deepEqual([status, needed], [403, "subscribe topic:a"]);
      return true;
    });
    assert.equal(asked[0].address, "POST /elsewhere");
  });
});

test("what no ticket can be had for is said", async () => {
  await assert.rejects(withTicket("/api/history"), TypeError);
  await assert.rejects(withTicket("/api/sse", { topic: ["a"] }), /topic is no option/);
  await assert.rejects(withTicket("/api/sse", { token: "a b" }), /the token can't be sent/);
});
