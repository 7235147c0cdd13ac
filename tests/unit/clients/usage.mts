// What a typed page writes, against the package's types. Compiled by test_js_types.py, never run.
import { backOff, EventParser, Problem, problemOf, Tidegate, unreachable, withTicket } from "tidegate";
import type { Options, State, TicketOptions, TidegateEvent } from "tidegate";

const options: Options = {
  clientId: "c",
  userId: "u",
  topics: new Set(["prices.*"]),
  lastEventId: "e-1",
  token: async () => (await fetch("/token")).text(),
  headers: async () => ({ "X-Page": "p" }),
  fetchOptions: { credentials: "include" },
  fetch,
  silence: false,
  attempts: 3,
  random: Math.random,
};
const client: Tidegate = new Tidegate(() => new URL("https://host/api/sse"), options);
const stop: () => boolean = client.on("event", (event: TidegateEvent) => {
  const [texts, own]: [string[], string | null] = [[event.type, event.data, event.lastEventId], event.id];
  console.log(texts, own);
});
client.on("gap", ({ data }) => JSON.parse(data));
client.on("closing", ({ data }) => JSON.parse(data));
client.on("note", ({ data, lastEventId }) => JSON.parse(data + lastEventId));
client.on("state", (state) => told(state).toUpperCase());

// Every state has its case, or this gives no string.
function told(state: State): string {
  switch (state.name) {
    case "connecting":
    case "open":
    case "resting":
      return state.name;
    case "waiting":
      return `${state.reason}: in ${state.seconds.toFixed()} s, at ${new Date(state.until).toISOString()}`;
    case "closed":
      return state.problem ? `${state.problem.status.toFixed()} ${state.problem.title}` : state.reason;
  }
}

const place: string = client.lastEventId + client.clientId + told(client.state);
const counted: number = client.running ? client.reconnects : backOff(2, 0.5, () => 1) + backOff(0);
client.wake();
client.wake(true);
client.rest();
client.close();
stop();

const problem: Problem = await problemOf(new Response());
const facts: string[] = [problem.title, problem.detail, problem.field, problem.traceId, problem.message, problem.type];
facts.push(problem.needed, problem.reason);
const milliseconds: number | undefined = new Problem({ title: "Full", status: 503, retryAfterMs: 1_000 }).retryAfterMs;
const parser = new EventParser({ onEvent: ({ data }) => data?.length, onRetry: (wait) => wait.toFixed(), lastEventId: "" });
parser.feed("data: x\n\n");
console.log(place, counted, facts, milliseconds, unreachable(new TypeError()));

for (const token of ["t", () => "t", () => null, async () => undefined]) new Tidegate("/api/sse", { token });
const wish: TicketOptions = { token: () => "t", topics: ["prices.*"], userId: "u", tickets: "/api/auth/tickets", fetch };
const source = new EventSource(await withTicket(new URL("https://host/api/sse"), { ...wish, lastEventId: place }));
source.addEventListener("expiring", () => withTicket("/api/sse/jobs/7"));

// @ts-expect-error: there is no stream without an address
new Tidegate();
// @ts-expect-error: the client alone moves its place
client.lastEventId = "e-2";
// @ts-expect-error: a state is no event
client.on("state", (event: TidegateEvent) => event);
// @ts-expect-error: a listener is a function
client.on("note", {});
// @ts-expect-error: not every state has them
client.state.seconds;
// @ts-expect-error: the client has its own signal
new Tidegate("/api/sse", { fetchOptions: { signal: new AbortController().signal } });
// @ts-expect-error: a token is a text
new Tidegate("/api/sse", { token: 5 });
// @ts-expect-error: a misspelt option
new Tidegate("/api/sse", { topic: ["prices"] });
