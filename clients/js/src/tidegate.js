import { faultOf, isStream, reasonOf, refusal } from "./answers.js";
import { RequestFault } from "./asking.js";
import { unlessAborted, watched } from "./attempt.js";
import { backOff } from "./backoff.js";
import { Credentials } from "./credentials.js";
import { followPage } from "./page.js";
import { EventParser, readStream } from "./parser.js";
import { LONGEST_WAIT_SECONDS, Problem } from "./problem.js";
import { nextRequest } from "./request.js";

const CONNECT_SECONDS = 15;
const PROVEN_SECONDS = 10;
const OPTIONS = new Set(
  "clientId userId topics lastEventId token headers fetchOptions fetch silence attempts random".split(" "),
);
const OWN_TYPES = new Set(["connected", "gap", "closing", "expiring"]);
const NOT_TYPES = new Set(["event", "state"]); // what `on` means by these names is not events of that type

/** One event stream that comes back by itself, from where it was. The contract is in index.d.ts. */
export class Tidegate {
  lastEventId;
  clientId;
  listening = null;
  reconnects = 0;
  state = { name: "connecting" };
  #url;
  #options;
  #credentials;
  #listeners = new Map();
  #life = new AbortController();
  #leavePage;
  #attempt = null;
  #goOn = null;
  #resting = false;
  #retry = 0;
  #failures = 0;
  #failed = 0;
  #opened = false;

  constructor(url, options = {}) {
    for (const name of Object.keys(options)) {
      if (!OPTIONS.has(name)) throw new TypeError(`${name} is no option; ${[...OPTIONS].join(", ")} are`);
    }
    for (const name of ["headers", "signal"]) {
      if (options.fetchOptions?.[name]) throw new TypeError(`fetchOptions.${name}: the client makes its own`);
    }
    this.#url = url;
    const { silence = 45, attempts = Infinity, random = Math.random } = options;
    // The topics are asked for with each attempt, and not every iterable can be gone through again. A text is one, too.
    const topics = typeof options.topics === "string" ? [options.topics] : [...(options.topics ?? [])];
    this.#options = { ...options, silence, attempts, random, topics };
    this.#credentials = new Credentials(options.token);
    this.lastEventId = options.lastEventId ?? "";
    this.clientId = options.clientId ?? "";
    this.#leavePage = followPage(this);
    queueMicrotask(() => this.#run(this.#life.signal));
  }

  on(type, listener) {
    if (typeof type !== "string" || !type || typeof listener !== "function") {
      throw new TypeError("on(type, listener): an event's type, event or state, and a function");
    }
    const listeners = this.#listeners.get(type) ?? new Set();
    this.#listeners.set(type, listeners.add(listener));
    return () => listeners.delete(listener);
  }

  get running() {
    return this.state.name !== "closed";
  }

  close() {
    this.#end({ reason: "closed by the caller" });
  }

  /**
   * The page is looked at again, or the network is back: what waits goes on now (but never before the time that a
   * Retry-After named), a stream that fell silent is replaced, and with `suspect` a live one too.
   */
  wake(suspect = false) {
    this.#resting = false;
    this.#goOn?.();
    if (this.#attempt && (suspect || this.#attempt.silent())) this.#attempt.replace();
  }

  /** The page is left, perhaps to be shown again later: gives the socket back, and takes none before `wake`. */
  rest() {
    this.#resting = true;
    this.#attempt?.replace();
  }

  #end(facts) {
    if (!this.running) return;
    this.#life.abort();
    this.#attempt?.abort();
    this.#goOn?.();
    this.#leavePage();
    this.#tell({ name: "closed", ...facts });
  }

  #tell(state) {
    this.state = state;
    this.#emit("state", state);
  }

  #emit(type, value) {
    for (const listener of this.#listeners.get(type) ?? []) {
      try {
        listener(value);
      } catch (error) {
        // A listener's fault is its own: it is reported, and the stream goes on.
        queueMicrotask(() => {
          throw error;
        });
      }
    }
  }

  async #run(life) {
    while (!life.aborted) {
      if (this.#resting) {
        await this.#rested();
        continue;
      }
      this.#tell({ name: "connecting" });
      const end = await this.#try(life);
      if (life.aborted) return;
      if (end.final) {
        this.#end({ reason: end.reason, problem: end.problem });
        return;
      }
      if (end.useful) this.#failures = this.#failed = 0;
      if (end.replaced) continue;
      if (!end.useful) this.#failed += 1;
      if (this.#failed >= this.#options.attempts) {
        this.#end({ reason: `given up: ${end.reason}`, problem: end.problem ?? new Problem({ title: end.reason }) });
        return;
      }
      const bound = Math.max(this.#retry, end.notBefore ?? 0);
      // The gateway's own `retry:` with `closing` is already spread over its clients.
      const spread = end.closing && bound > 0;
      const seconds = spread ? bound : backOff(this.#failures, bound, this.#options.random);
      this.#failures += 1;
      await this.#wait(seconds, end, life);
    }
  }

  /** Until `wake` or `close`. */
  #rested() {
    return new Promise((resolve) => {
      this.#goOn = () => {
        this.#goOn = null;
        resolve();
      };
      this.#tell({ name: "resting" });
    });
  }

  #wait(seconds, { reason, problem, notBefore = 0 }, life) {
    const until = Date.now() + seconds * 1_000;
    const earliest = Date.now() + notBefore * 1_000;
    return new Promise((resolve) => {
      const go = () => {
        clearTimeout(timer);
        this.#goOn = null;
        resolve();
      };
      const timer = setTimeout(go, seconds * 1_000);
      this.#goOn = () => {
        if (life.aborted || Date.now() >= earliest) go();
      };
      this.#tell({ name: "waiting", seconds, until, reason, ...(problem && { problem }) });
    });
  }

  /** One request, to its end. */
  async #try(life) {
    const attempt = (this.#attempt = watched(CONNECT_SECONDS));
    const end = { useful: false, closing: false, final: false, reason: "the stream ended" };
    let late = "token() gave nothing in time";
    try {
      const token = await unlessAborted(this.#credentials.next(), attempt.signal);
      late = "headers() gave nothing in time";
      const { address, headers } = await unlessAborted(this.#request(token), attempt.signal);
      late = "nothing was heard for too long";
      const init = { cache: "no-store", ...this.#options.fetchOptions, headers, signal: attempt.signal };
      const response = await unlessAborted((this.#options.fetch ?? fetch)(address, init), attempt.signal);
      if (!isStream(response)) return this.#perhapsOnceMore(await refusal(response, attempt.signal));
      attempt.open(this.#options.silence || 0);
      this.#credentials.accepted();
      const reading = readStream(response.body, this.#parser(end, life, attempt), attempt.heard, attempt.signal);
      await unlessAborted(reading, attempt.signal);
    } catch (error) {
      if (error instanceof RequestFault) end.final = error.final;
      Object.assign(end, faultOf(attempt.timedOut ? late : reasonOf(error, attempt.opened()), error));
    } finally {
      end.replaced = attempt.replaced;
      end.useful ||= end.closing || attempt.age() > PROVEN_SECONDS;
      attempt.end();
      if (this.#attempt === attempt) this.#attempt = null;
    }
    return end;
  }

  #request(token) {
    return nextRequest(this.#url, this.#options, this, token);
  }

  /** A refusal after which another token may do, or another client id, is none that ends the client, once. */
  #perhapsOnceMore(end) {
    if (end.final && this.#isAnothers(end.problem)) {
      this.clientId = this.#options.clientId ?? "";
      return { ...end, final: false };
    }
    const seconds = end.final && end.problem ? this.#credentials.onceMore(end.problem) : null;
    if (seconds === null) return end;
    return { ...end, final: false, notBefore: Math.max(seconds, (end.problem.retryAfterMs ?? 0) / 1_000) };
  }

  /** Whether the id that the gateway has made is refused: it was made for another user, who has signed out. */
  #isAnothers(problem) {
    return this.clientId !== (this.#options.clientId ?? "") && problem?.needed === `subscribe client:${this.clientId}`;
  }

  /**
   * The token ends soon: if there is another, the stream goes on with that, from where it is. One that has only just
   * begun with its token would begin and end for ever: it lasts as long as that does.
   */
  async #renew(attempt) {
    if (attempt.age() <= PROVEN_SECONDS) return;
    try {
      const token = await this.#credentials.other();
      if (!token || this.#attempt !== attempt) return;
      this.#credentials.use(token);
      attempt.replace();
    } catch (error) {
      // What passes is left: the gateway ends the stream when the token does, and then it is asked for again.
      if (error instanceof RequestFault && error.final) this.#end(faultOf(error.message, error));
    }
  }

  #parser(end, life, attempt) {
    return new EventParser({
      lastEventId: this.lastEventId,
      onRetry: (milliseconds) => (this.#retry = Math.min(milliseconds / 1_000, LONGEST_WAIT_SECONDS)),
      onEvent: (event) => {
        if (life.aborted) return;
        this.lastEventId = event.lastEventId;
        if (event.data === null) return;
        this.#heard(event);
        if (!OWN_TYPES.has(event.type)) end.useful = true;
        if (event.type === "closing") end.closing = true;
        if (event.type === "expiring") this.#renew(attempt);
        this.#emit("event", event);
        if (!NOT_TYPES.has(event.type)) this.#emit(event.type, event);
        if (event.type === "closing" && facts(event).reconnect === false) {
          this.#end({ reason: "the gateway asks not to come back" });
        }
      },
    });
  }

  /** The first event of a connection opens it. A client id made by the gateway is kept for the next connection. */
  #heard(event) {
    if (event.type === "connected") {
      const { client_id: made, listening } = facts(event);
      if (made && typeof made === "string") this.clientId = made;
      this.listening = listening ?? null;
    }
    if (this.state.name === "open") return;
    if (this.#opened) this.reconnects += 1;
    this.#opened = true;
    this.#tell({ name: "open" });
  }
}

function facts(event) {
  try {
    return Object(JSON.parse(event.data));
  } catch {
    return {};
  }
}
