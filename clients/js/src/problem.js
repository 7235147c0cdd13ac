/** What went wrong with a call, as RFC 9457 tells it: `title`, and where known `detail`, `field`, `status`, `traceId`. */
export class Problem extends Error {
  constructor({ title, detail = "", field = "", status = 0, traceId = "", retryAfterMs }) {
    super(title);
    Object.assign(this, { title, detail, field, status, traceId, retryAfterMs });
  }
}

/** The problem that a response other than a success tells. */
export async function problemOf(response) {
  const text = await response.text().catch(() => "");
  const facts = parsed(text);
  return new Problem({
    title: facts.title || `${response.status} ${response.statusText}`.trim(),
    detail: facts.detail || (facts.title ? "" : text.slice(0, 500)),
    field: facts.field,
    status: response.status,
    traceId: facts.trace_id,
    retryAfterMs: retryAfter(response.headers.get("Retry-After")),
  });
}

/** Why `fetch` failed, for people: browsers say little on purpose. */
export function unreachable(error) {
  return error.name === "AbortError" ? "the connection was cut" : "the server can't be reached";
}

function parsed(text) {
  try {
    return Object(JSON.parse(text));
  } catch {
    return {};
  }
}

function retryAfter(value) {
  if (!value) return undefined;
  const seconds = /^\d+$/.test(value) ? Number(value) : (Date.parse(value) - Date.now()) / 1_000;
  return Number.isFinite(seconds) ? Math.max(0, seconds * 1_000) : undefined;
}
