import { RequestFault } from "./asking.js";
import { detail, PASSING, Problem, problemOf, unreachable } from "./problem.js";

/** How an attempt has ended that `error` has ended. */
export function faultOf(reason, error) {
  return { reason, problem: new Problem({ title: reason, cause: error?.cause ?? error }) };
}

export function isStream(response) {
  const [type] = (response.headers.get("Content-Type") ?? "").split(/[;,]/);
  return response.status === 200 && type.trim().toLowerCase() === "text/event-stream";
}

/** Why an attempt has ended, for people. */
export function reasonOf(error, opened) {
  if (error instanceof RequestFault) return error.message;
  return opened ? `the connection broke: ${detail(error)}` : unreachable(error);
}

/** What an answer that is no event stream means: 408, 425, 429 and 5xx pass, everything else is final. */
export async function refusal(response, signal) {
  const { status } = response;
  if (status < 300) {
    response.body?.cancel().catch(() => {});
    if (status === 204) return { final: true, reason: "the server asks not to come back (204)" };
    const title = "The answer is no event stream";
    return { final: true, reason: title, problem: new Problem({ title, status }) };
  }
  const problem = await problemOf(response, signal);
  if (status < 500 && !PASSING.has(status)) return { final: true, reason: problem.title, problem };
  return { reason: problem.title, problem, notBefore: (problem.retryAfterMs ?? 0) / 1_000 };
}
