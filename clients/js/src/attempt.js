/**
 * An abort signal with a watchdog: fires when nothing is heard for `limit` seconds (0: never). Wall clock, since timers
 * stop while a machine sleeps.
 */
export function watched(limit) {
  const controller = new AbortController();
  let heardAt = Date.now();
  let openedAt = null;
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
    /** The stream is there: from now on `silence` is the limit. */
    open: (silence) => {
      limit = silence;
      openedAt = attempt.heard();
    },
    opened: () => openedAt !== null,
    /** Seconds since it was open. */
    age: () => (openedAt === null ? 0 : (Date.now() - openedAt) / 1_000),
    silent: () => limit > 0 && Date.now() - heardAt > limit * 1_000,
    end: () => clearTimeout(timer),
  };
  let timer;
  const look = () => {
    if (attempt.silent()) {
      attempt.timedOut = true;
      controller.abort();
    } else {
      timer = setTimeout(look, limit ? Math.min(1_000, limit * 250) : 1_000);
    }
  };
  look();
  return attempt;
}

/**
 * What `promise` gives, or an error once `signal` has fired. Node's fetch does not always tell its own abort: where it
 * can't decode a body it hangs for good.
 */
export function unlessAborted(promise, signal) {
  return new Promise((resolve, reject) => {
    if (signal.aborted) reject(signal.reason);
    signal.addEventListener("abort", () => reject(signal.reason), { once: true });
    Promise.resolve(promise).then(resolve, reject);
  });
}
