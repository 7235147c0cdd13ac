/**
 * The event stream format of WHATWG HTML 9.2: text in pieces of any size goes in, events come out.
 * The one character U+FEFF that may lead a stream is taken off by TextDecoder.
 */
export class EventParser {
  #onEvent;
  #onRetry;
  #rest = "";
  #afterReturn = false;
  #type = "";
  #data = [];
  #id;

  /**
   * `onEvent({type, data, id, lastEventId})`: `id` is the event's own or null; `lastEventId` is what to go on from.
   * `onRetry(milliseconds)`. A dispatch without data only moves the id: `onEvent` gets `data: null` then.
   */
  constructor({ onEvent, onRetry, lastEventId = "" }) {
    this.#onEvent = onEvent;
    this.#onRetry = onRetry;
    this.#id = { last: lastEventId, own: null };
  }

  /** Takes the next piece of the stream. An event that the stream's end cuts off is never reported. */
  feed(text) {
    if (text === "") return;
    // A CR ends a line at once; the LF of a CRLF that was cut in two belongs to it.
    if (this.#afterReturn && text[0] === "\n") text = text.slice(1);
    this.#afterReturn = text.endsWith("\r");
    const lines = text.split(/\r\n|\r|\n/);
    lines[0] = this.#rest + lines[0];
    this.#rest = lines.pop();
    for (const line of lines) this.#line(line);
  }

  #line(line) {
    if (line === "") {
      this.#dispatch();
    } else if (line[0] !== ":") {
      const [, field, value = ""] = /^([^:]*)(?:: ?(.*))?$/s.exec(line);
      this.#field(field, value);
    }
  }

  #field(field, value) {
    if (field === "event") this.#type = value;
    else if (field === "data") this.#data.push(value);
    else if (field === "id" && !value.includes("\0")) this.#id = { last: value, own: value };
    else if (field === "retry" && /^[0-9]+$/.test(value)) this.#onRetry(Number(value));
  }

  #dispatch() {
    const data = this.#data.length ? this.#data.join("\n") : null;
    if (data !== null || this.#id.own !== null) {
      this.#onEvent({ type: this.#type || "message", data, id: this.#id.own, lastEventId: this.#id.last });
    }
    this.#type = "";
    this.#data = [];
    this.#id = { last: this.#id.last, own: null };
  }
}

/**
 * Feeds `parser` from a response body to its end, or until `signal` has fired; `onHeard` is called for every piece,
 * comments included.
 */
export async function readStream(body, parser, onHeard, signal) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  for (;;) {
    const { done, value } = await reader.read();
    if (done || signal?.aborted) return;
    onHeard();
    parser.feed(value);
  }
}
