import { PASSING } from "./problem.js";

/**
 * What keeps an attempt from being made at all. `final`: another attempt can't go better, since what is wrong was given
 * by the caller. `cause` is what was thrown.
 */
export class RequestFault extends Error {
  constructor(text, cause, final) {
    super(`${text}: ${cause?.message ?? cause}`, { cause });
    this.final = final;
  }
}

/** What the caller has `given` as `name`, itself or from a function. Throws RequestFault. */
export async function asked(name, given) {
  if (typeof given !== "function") return given;
  let found;
  try {
    found = given();
  } catch (error) {
    throw new RequestFault(`${name}() failed`, error, true);
  }
  // A token is often fetched: where that fails, it may go better the next time.
  return Promise.resolve(found).catch((error) => {
    throw new RequestFault(`${name}() failed`, error, error instanceof ReferenceError || refuses(error));
  });
}

/** Whether `error` is the answer of a server that would give it again, as `problemOf` makes it. */
function refuses(error) {
  return error?.status >= 400 && error.status < 500 && !PASSING.has(error.status);
}
