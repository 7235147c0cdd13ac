import { unlessAborted } from "./attempt.js";

/** What passes of 4xx. */
export const PASSING = new Set([408, 425, 429]);

const LONGEST_PROBLEM = 65_536;

/** No server keeps a client away for longer, whatever number it sends. */
export const LONGEST_WAIT_SECONDS = 86_400;

/** What went wrong with a call, as RFC 9457 tells it: `title`, and what else is known. The contract is in index.d.ts. */
export class Problem extends Error {
  constructor({ title, cause, ...known }) {
    super(title, cause === undefined ? undefined : { cause });
    const unknown = { type: "", detail: "", field: "", needed: "", reason: "", status: 0, traceId: "" };
    Object.assign(this, { title, retryAfterMs: undefined, ...unknown, ...known });
  }
}

/** The problem that a response other than a success tells; of its body, what has come until `signal` fires. */
export async function problemOf(response, signal = new AbortController().signal) {
  const text = await beginning(response, signal);
  const facts = parsed(text);
  const said = (name) => (typeof facts[name] === "string" ? facts[name] : "");
  return new Problem({
    title: said("title") || `${response.status} ${response.statusText}`.trim(),
    detail: said("detail") || (said("title") ? "" : text.slice(0, 500)),
    type: said("type"),
    field: said("field"),
    needed: said("needed"),
    reason: said("reason"),
    status: response.status,
    traceId: said("trace_id"),
    retryAfterMs: retryAfter(response.headers.get("Retry-After")),
  });
}

/** As much of a body as comes: what the head says counts without it too. */
async function beginning(response, signal) {
  if (!response.body) return "";
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  const reading = async () => {
    for (let piece = await reader.read(); !piece.done; piece = await reader.read()) {
      text += piece.value;
      if (text.length >= LONGEST_PROBLEM) break;
    }
    reader.cancel().catch(() => {});
  };
  await unlessAborted(reading(), signal).catch(() => {}); // it was cut off, or takes too long
  return text;
}

/** Why `fetch` failed, for people: browsers say little on purpose, Node says it in the cause. */
export function unreachable(error) {
  return error?.name === "AbortError" ? "the connection was cut" : `the server can't be reached: ${detail(error)}`;
}

export function detail(error) {
  return error?.cause?.message || error?.cause?.code || error?.message || String(error);
}

function parsed(text) {
  try {
    return Object(JSON.parse(text));
  } catch {
    return {};
  }
}

const MONTHS = "Jan Feb Mar Apr May Jun Jul Aug Sep Oct Nov Dec".split(" ");
// The three dates of RFC 9110, 5.6.7. Date.parse takes much more ("soon 2099"), and one of them for local time.
const DATES = [
  /^[A-Z][a-z]{2}, (?<day>\d\d) (?<month>[A-Z][a-z]{2}) (?<year>\d{4}) (?<time>\d\d:\d\d:\d\d) GMT$/,
  /^[A-Z][a-z]+day, (?<day>\d\d)-(?<month>[A-Z][a-z]{2})-(?<year>\d\d) (?<time>\d\d:\d\d:\d\d) GMT$/,
  /^[A-Z][a-z]{2} (?<month>[A-Z][a-z]{2}) (?<day>[ \d]\d) (?<time>\d\d:\d\d:\d\d) (?<year>\d{4})$/,
];

/** Milliseconds that a Retry-After asks for, a day at most; undefined where it is neither a number nor a date. */
export function retryAfter(value) {
  const seconds = /^[0-9]+$/.test(value ?? "") ? Number(value) : (dateOf(value ?? "") - Date.now()) / 1_000;
  return Number.isNaN(seconds) ? undefined : Math.min(Math.max(0, seconds), LONGEST_WAIT_SECONDS) * 1_000;
}

function dateOf(text) {
  const { day, month, year, time } = DATES.map((date) => date.exec(text)).find(Boolean)?.groups ?? {};
  if (!time || !MONTHS.includes(month)) return NaN;
  const [hour, minute, second] = time.split(":").map(Number);
  const thisYear = new Date().getUTCFullYear();
  let full = Number(year);
  if (year.length === 2) {
    full += thisYear - (thisYear % 100);
    if (full > thisYear + 50) full -= 100; // it looks more than 50 years ahead: it is of the last century
  }
  const made = new Date(0);
  made.setUTCFullYear(full, MONTHS.indexOf(month), Number(day));
  if (made.getUTCDate() !== Number(day) || hour > 23 || minute > 59 || second > 59) return NaN;
  return made.setUTCHours(hour, minute, second);
}
