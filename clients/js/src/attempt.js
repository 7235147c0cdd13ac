/**
 * An abort signal with a watchdog: fires when nothing is heard for `limit` seconds (0: never). Wall clock, since timers
 * stop while a machine sleeps.
 */
export function watched(limit) {
  const controller = new AbortController();
  const since = Date.now();
  let heardAt = since;
  const attempt = {
    signal: controller.signal,
    timedOut: false,
    replaced: false,
    limit,
    abort: () => controller.abort(),
    replace: () => {
      attempt.replaced = true;
      controller.abort();
    },
    heard: () => (heardAt = Date.now()),
    age: () => (Date.now() - since) / 1_000,
    silent: () => attempt.limit > 0 && Date.now() - heardAt > attempt.limit * 1_000,
    end: () => clearTimeout(timer),
  };
  let timer;
  const look = () => {
    if (attempt.silent()) {
      attempt.timedOut = true;
      controller.abort();
    } else {
      timer = setTimeout(look, attempt.limit ? Math.min(1_000, attempt.limit * 250) : 1_000);
    }
  };
  look();
  return attempt;
}
