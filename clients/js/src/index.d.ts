/** One event. `id` is its own, or null for a volatile one; `lastEventId` is what to go on from after it. */
export interface TidegateEvent {
  readonly type: string;
  readonly data: string;
  readonly id: string | null;
  readonly lastEventId: string;
}

/**
 * `until` is Unix time in milliseconds. `resting` has no socket until `wake`. A `problem` with `waiting` says why the
 * attempt before has failed, with `closed` why the client must not come back; its `cause` is what was thrown.
 */
export type State =
  | { readonly name: "connecting" }
  | { readonly name: "open" }
  | { readonly name: "resting" }
  | { readonly name: "waiting"; readonly seconds: number; readonly until: number; readonly reason: string; readonly problem?: Problem }
  | { readonly name: "closed"; readonly reason: string; readonly problem?: Problem };

export interface Options {
  /** Empty: the gateway makes one, which is kept over reconnects. */
  clientId?: string;
  userId?: string;
  /** One or several. */
  topics?: string | Iterable<string>;
  /** Where to go on, from an earlier `lastEventId`. */
  lastEventId?: string;
  /**
   * A token or a key, or what gives one: asked before each attempt, when the gateway says that the token is `expiring`,
   * and once more if it finds it expired. "" or null is no token. 401 and 403 end the client, with the problem. What is
   * thrown counts as it does for `headers`.
   */
  token?: string | (() => string | null | undefined | Promise<string | null | undefined>);
  /**
   * Fields, or what gives them before each attempt. A promise that rejects is an attempt that failed. What ends the client: an error that is thrown at once, a ReferenceError, an error with the `status` of a
   * refusal (a `Problem` of 401), and fields that can't be sent.
   */
  headers?: HeadersInit | (() => HeadersInit | Promise<HeadersInit>);
  /** More for `fetch`, for example `credentials: "include"` for the cookie of another origin. */
  fetchOptions?: Omit<RequestInit, "headers" | "signal">;
  fetch?: typeof fetch;
  /** Seconds without a byte after which the connection counts as dead: 45; 0 or false is never. */
  silence?: number | false;
  /** After so many attempts in a row that failed the client gives up: no limit. */
  attempts?: number;
  /** Gives numbers from 0 to 1 for the jitter. */
  random?: () => number;
}

interface Named {
  /** Every event, of whichever type. */
  event: TidegateEvent;
  state: State;
}

/** One event stream that comes back by itself, from where it was. It connects at once and lives until `close`. */
export class Tidegate {
  /**
   * `url` is the stream's whole address, as `/api/sse`, or what gives it before each attempt. Outside of a page it has
   * to be absolute. One that can't be used ends the client. Throws TypeError for an option that there is not.
   */
  constructor(url: string | URL | (() => string | URL), options?: Options);
  /** What to go on from: store it to resume later. */
  readonly lastEventId: string;
  readonly clientId: string;
  /** What the gateway said is listened to, as `topic:prices.*`, or how many names that are; null before it has. */
  readonly listening: readonly string[] | number | null;
  readonly reconnects: number;
  readonly state: State;
  readonly running: boolean;
  /**
   * Calls `listener` from now on; gives what ends that. `event` is every event and `state` every state; any other name
   * is a type of events, as `gap`, `closing`, or one of a publisher's. Events of the types `event` and `state` come to
   * the listeners of `event` alone. Throws TypeError where `listener` is no function.
   */
  on<Type extends string>(
    type: Type,
    listener: (value: Type extends keyof Named ? Named[Type] : TidegateEvent) => void,
  ): () => boolean;
  /** Ends the stream for good. */
  close(): void;
  /** Goes on now instead of waiting; with `suspect`, a live connection is replaced too. Pages do it by themselves. */
  wake(suspect?: boolean): void;
  /** Gives the socket back until `wake`, which pages do by themselves. */
  rest(): void;
}

/** What went wrong with a call, as RFC 9457 tells it. `status` is 0 where there was no answer. */
export class Problem extends Error {
  constructor(facts: { title: string; cause?: unknown } & Partial<Pick<Problem, "type" | "detail" | "field" | "needed" | "reason" | "status" | "traceId" | "retryAfterMs">>);
  /** The kind of problem, as `urn:tidegate:problem:forbidden`. */
  readonly type: string;
  readonly title: string;
  readonly detail: string;
  readonly field: string;
  /** The right that would do, as `subscribe topic:a.b`. */
  readonly needed: string;
  /** Why a token is not good, as `expired`. */
  readonly reason: string;
  readonly status: number;
  readonly traceId: string;
  /** A day at most. */
  readonly retryAfterMs?: number;
}

export interface TicketOptions {
  token?: Options["token"];
  clientId?: string;
  userId?: string;
  topics?: string | Iterable<string>;
  /** Where to go on, from an earlier event's id. */
  lastEventId?: string;
  /** Where tickets are made: beside the stream's own address, `/api/auth/tickets`. */
  tickets?: string;
  fetch?: typeof fetch;
}

/**
 * `url` (a stream's, or a job's own) with a ticket, for the browser's own EventSource, which can send no header. The
 * ticket is for that one stream; it has 30 s to its first use, and serves EventSource's reconnects until the token's
 * end. Rejects with the Problem if it is refused.
 */
export function withTicket(url: string | URL, options?: TicketOptions): Promise<string>;

/** What a refusal tells; of its body, what has come until `signal` fires. */
export function problemOf(response: Response, signal?: AbortSignal): Promise<Problem>;
export function unreachable(error: Error): string;
export function backOff(failures: number, atLeast?: number, random?: () => number): number;

/** The event stream format, from text in pieces of any size. `data` is null where only the id moves. */
export class EventParser {
  constructor(to: {
    onEvent: (event: Omit<TidegateEvent, "data"> & { data: string | null }) => void;
    onRetry: (milliseconds: number) => void;
    lastEventId?: string;
  });
  feed(text: string): void;
}
