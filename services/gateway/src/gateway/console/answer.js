import { element } from "./view.js";

/** One answer's bubble. Its text grows in one text node: what a model writes never becomes markup. */
export class Answer {
  jobId = "";
  done = false;
  stopping = false;
  summary = "";
  #next = 0;
  #text = new Text();
  #thought = new Text();
  #state = element("p", { class: "answer-state" }, "Waiting for the model…");
  #thinking = element("details", { class: "thinking" }, element("summary", {}, "Thinking"));

  constructor(prompt) {
    this.prompt = prompt;
    this.#thinking.append(element("p", {}, this.#thought));
    this.#thinking.hidden = true;
    this.box = element("article", { class: "answer", "data-state": "waiting", "aria-label": "Answer" });
    this.box.append(this.#thinking, element("p", { class: "answer-text" }, this.#text), this.#state);
  }

  get text() {
    return this.#text.data;
  }

  /** Takes one `ai_…` event of this answer's job. */
  take(type, piece) {
    if (type === "ai_progress") this.#waits(piece);
    else if (type === "ai_error") this.fail("The answer failed", piece.message);
    else if (type === "ai_restart") this.#restart(piece.attempt);
    else if (this.#inOrder(piece)) this.#grow(type, piece);
  }

  /** The place in the queue; other progress counts as a piece without text. */
  #waits(piece) {
    if (piece.state !== "queued") {
      this.#inOrder(piece);
      return;
    }
    if (this.stopping || this.#next) return;
    const about = piece.wait_seconds == null ? "" : `, about ${Math.ceil(piece.wait_seconds)} s`;
    this.#set("waiting", `In the queue: place ${piece.position}${about}`);
  }

  /** The user asked to stop: said at once, the last event confirms it. */
  stop() {
    this.stopping = true;
    this.#set("stopping", "Stopping…");
  }

  fail(title, detail) {
    this.done = true;
    this.#set("failed", detail ? `${title}: ${detail}` : title);
  }

  /** Pieces are numbered without holes: one that was seen is passed over (the last never), a hole (a `gap`) is shown. */
  #inOrder({ index, done }) {
    if (index < this.#next) return done;
    if (index > this.#next) this.#text.appendData(" […] ");
    this.#next = index + 1;
    return true;
  }

  #grow(type, piece) {
    if (type === "ai_reasoning") {
      this.#thinking.hidden = false;
      this.#thought.appendData(piece.content);
      if (!this.stopping) this.#set("thinking", "Thinking…");
      return;
    }
    this.#text.appendData(piece.content);
    if (piece.done) this.#finish(piece);
    else if (!this.stopping) this.#set("answering", "Answering…");
  }

  #finish({ finish_reason: reason, usage }) {
    this.done = true;
    const stopped = reason === "cancelled";
    const counted = usage ? ` · ${usage.prompt_tokens} tokens in, ${usage.completion_tokens} out` : "";
    this.#set(stopped ? "stopped" : "done", `${stopped ? "Stopped" : "Finished"}: ${reason}${counted}`);
  }

  #restart(attempt) {
    this.#next = 0;
    this.#text.data = "";
    this.#thought.data = "";
    this.#thinking.hidden = true;
    this.#set("waiting", `Started again by another worker (attempt ${attempt})…`);
  }

  #set(state, summary) {
    this.box.dataset.state = state;
    this.summary = summary;
    if (this.#state.textContent !== summary) this.#state.textContent = summary;
  }
}
