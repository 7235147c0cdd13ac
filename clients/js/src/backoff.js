const BASE_SECONDS = 0.5;
const CAP_SECONDS = 30;

/**
 * Seconds to wait after `failures` useless attempts in a row: `atLeast`, and full jitter over a window that doubles
 * from 0.5 s to 30 s on top, so that clients with the same bound spread too.
 */
export function backOff(failures, atLeast = 0, random = Math.random) {
  return atLeast + random() * Math.min(CAP_SECONDS, BASE_SECONDS * 2 ** failures);
}
