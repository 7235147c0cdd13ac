import { Problem, problemOf, unreachable } from "./api.js";
import { EventParser, readStream } from "./sse.js";

const HEARTBEAT_MS = 15_000;
const SILENCE_MS = 2.5 * HEARTBEAT_MS;
const CONNECT_MS = 15_000;
const BACK_OFF_LIMIT_MS = 30_000;
const FIRST_RETRY_MS = 1_000;

/** `base` doubled for each failure in a row, and up to half as long again, so that clients cut off together spread. */
function backOff(base, failures) {
  const doubled = Math.min(BACK_OFF_LIMIT_MS, base * 2 ** failures);
  return Math.max(base, doubled) * (1 + Math.random() / 2);
}

/**
 * One event stream that comes back by itself, from where it was.
 *
 * `onState({name, …})`: `connecting`; `open`; `waiting` with `until` (Unix ms) and `reason`; `closed`, with `problem`
 * when the gateway refused for good. `onEvent(event)`: as EventParser tells it, in order.
 */
export class Connection {
  lastEventId = "";
  reconnects = 0;
  #onState;
  #onEvent;
  #retry = FIRST_RETRY_MS;
  #life = null;
  #attempt = null;
  #goOn = null;
  #opened = false;

  constructor({ onState, onEvent }) {
    this.#onState = onState;
    this.#onEvent = onEvent;
  }

  get running() {
    return this.#life !== null;
  }

  /** Connects to what `address()` gives at each attempt, and stays connected until `stop`. */
  start(address, lastEventId = "") {
    this.stop();
    this.lastEventId = lastEventId;
    this.reconnects = 0;
    this.#retry = FIRST_RETRY_MS;
    this.#opened = false;
    this.#life = new AbortController();
    this.#run(address, this.#life.signal);
  }

  stop() {
    if (!this.#life) return;
    this.#life.abort();
    this.#life = null;
    this.#attempt?.abort();
    this.#goOn?.();
    this.#onState({ name: "closed" });
  }

  /**
   * The page is looked at again, or the network is back: what waits goes on now (but never before the time that a
   * Retry-After named), a stream that fell silent is replaced, and with `suspect` a live one too.
   */
  wake(suspect = false) {
    this.#goOn?.();
    if (this.#attempt && (suspect || this.#attempt.silent())) this.#attempt.replace();
  }

  /** The page is left, perhaps to be shown again later: gives the socket back, and waits for `wake`. */
  rest() {
    this.#attempt?.abort();
  }

  async #run(address, life) {
    let failures = 0;
    while (!life.aborted) {
      this.#onState({ name: "connecting" });
      const end = await this.#try(address(), life);
      if (life.aborted) return;
      if (end.final) {
        this.#life = null;
        this.#onState({ name: "closed", problem: end.problem });
        return;
      }
      if (end.replaced) continue;
      failures = end.opened ? 0 : failures + 1;
      // The gateway's own `retry:` with `closing` is already spread over its clients.
      const delay = end.closing ? this.#retry : backOff(this.#retry, failures);
      await this.#wait(delay, end.notBefore ?? 0, end.reason, life);
    }
  }

  #wait(delay, notBefore, reason, life) {
    const until = Date.now() + Math.max(delay, notBefore);
    const earliest = Date.now() + notBefore;
    this.#onState({ name: "waiting", until, reason });
    return new Promise((resolve) => {
      const go = () => {
        clearTimeout(timer);
        this.#goOn = null;
        resolve();
      };
      const timer = setTimeout(go, until - Date.now());
      this.#goOn = () => {
        if (life.aborted || Date.now() >= earliest) go();
      };
    });
  }

  /** One request, to its end. Gives `{opened, closing, reason}`, or `{final, problem}` when there is no coming back. */
  async #try(url, life) {
    const attempt = (this.#attempt = watched());
    const end = { opened: false, closing: false, reason: "the stream ended" };
    try {
      const headers = { Accept: "text/event-stream" };
      if (this.lastEventId) headers["Last-Event-ID"] = this.lastEventId;
      const response = await fetch(url, { headers, cache: "no-store", signal: attempt.signal });
      if (!isStream(response)) return await refusal(response);
      await readStream(response.body, this.#parser(end, attempt, life), attempt.heard);
    } catch (error) {
      end.replaced = attempt.replaced;
      end.reason = attempt.timedOut ? "nothing was heard for too long" : unreachable(error);
    } finally {
      attempt.end();
      if (this.#attempt === attempt) this.#attempt = null;
    }
    return end;
  }

  #parser(end, attempt, life) {
    return new EventParser({
      lastEventId: this.lastEventId,
      onRetry: (milliseconds) => (this.#retry = milliseconds),
      onEvent: (event) => {
        if (life.aborted) return;
        this.lastEventId = event.lastEventId;
        if (event.data === null) return;
        if (event.type === "closing") end.closing = true;
        if (event.type === "connected") {
          end.opened = true;
          attempt.opened();
          if (this.#opened) this.reconnects += 1;
          this.#opened = true;
          this.#onState({ name: "open" });
        }
        this.#onEvent(event);
      },
    });
  }
}

/** An abort signal with a watchdog: fires when nothing is heard for too long. Wall clock, since timers stop in sleep. */
function watched() {
  const controller = new AbortController();
  let heardAt = Date.now();
  let limit = CONNECT_MS;
  const attempt = {
    signal: controller.signal,
    timedOut: false,
    replaced: false,
    abort: () => controller.abort(),
    replace: () => {
      attempt.replaced = true;
      controller.abort();
    },
    heard: () => (heardAt = Date.now()),
    opened: () => (limit = SILENCE_MS),
    silent: () => Date.now() - heardAt > limit,
    end: () => clearInterval(timer),
  };
  const timer = setInterval(() => {
    if (!attempt.silent()) return;
    attempt.timedOut = true;
    controller.abort();
  }, 1_000);
  return attempt;
}

function isStream(response) {
  return response.status === 200 && (response.headers.get("Content-Type") ?? "").startsWith("text/event-stream");
}

/** What an answer that is no event stream means: 429 and 5xx pass, everything else is final. */
async function refusal(response) {
  const { status } = response;
  if (status < 300) {
    await response.body?.cancel();
    const title = status === 204 ? "The server asks not to come back (204)" : "The answer is no event stream";
    return { final: true, problem: new Problem({ title, status }) };
  }
  const problem = await problemOf(response);
  if (status !== 429 && status < 500) return { final: true, problem };
  return { reason: problem.title, notBefore: problem.retryAfterMs ?? 0 };
}
