import { Answer } from "./answer.js";
import { Problem } from "./api.js";
import { byId, element, Follow, json, showProblem } from "./view.js";

/** With its answer, this fits a local model's context of 2,048 tokens even where each byte is a token. */
const HISTORY_BYTES = 1_500;
const TYPES = new Set(["ai_response", "ai_reasoning", "ai_restart", "ai_error"]);

/** The chat: one question at a time, answered over the event stream. */
export class ChatPanel {
  #publisher;
  #connect;
  #follow;
  #answer = null;
  /** Events that came before the POST's own answer told the job's id; null while no POST is under way. */
  #early = null;
  #turns = [];

  constructor(publisher, connect) {
    this.#publisher = publisher;
    this.#connect = connect;
    this.#follow = new Follow(byId("chat-view"));
    byId("chat-form").addEventListener("submit", (event) => {
      event.preventDefault();
      this.#ask();
    });
    byId("prompt").addEventListener("keydown", (event) => {
      // Enter also ends a word's composition in an input method (Chinese, Japanese): that one sends nothing.
      if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
      event.preventDefault();
      byId("chat-form").requestSubmit();
    });
    addEventListener("keydown", (event) => {
      if (event.key === "Escape" && !event.isComposing) this.#stop();
    });
    byId("stop").addEventListener("click", () => this.#stop());
    byId("chat-clear").addEventListener("click", () => this.#clear());
  }

  /** Takes an event of the stream; those of other jobs and types are left alone. */
  take(event) {
    if (!TYPES.has(event.type)) return;
    const piece = json(event.data);
    if (!piece?.job_id) return; // the type alone proves nothing: anyone may have sent it
    if (this.#early) this.#early.push([event.type, piece]);
    else if (this.#answer?.jobId === piece.job_id) this.#show(event.type, piece);
  }

  async #ask() {
    const prompt = byId("prompt").value.trim();
    if (!prompt || this.#answer) return;
    byId("chat-problem").replaceChildren();
    if (!this.#connect.clientId || !this.#connect.running) {
      const detail = "The answer comes over your event stream.";
      showProblem(byId("chat-problem"), new Problem({ title: "Connect first", detail }));
      this.#connect.focus();
      return;
    }
    const answer = this.#begin(prompt);
    try {
      const messages = [...recent(this.#turns), { role: "user", content: prompt }];
      const { job_id: jobId } = await this.#publisher.chat({ messages, client_id: this.#connect.clientId });
      this.#accepted(answer, jobId);
    } catch (error) {
      if (!(error instanceof Problem)) throw error;
      answer.fail(error.title, error.detail);
      if (this.#answer === answer) this.#end();
    }
  }

  #begin(prompt) {
    this.#early = [];
    this.#answer = new Answer(prompt);
    byId("chat").append(element("div", { class: "said" }, prompt), this.#answer.box);
    byId("chat-empty").hidden = true;
    byId("prompt").value = "";
    byId("ask").hidden = true;
    byId("stop").hidden = false;
    this.#follow.resume();
    return this.#answer;
  }

  #accepted(answer, jobId) {
    answer.jobId = jobId;
    if (answer.stopping) this.#cancel(jobId);
    if (this.#answer !== answer) return; // "New chat" was faster
    const early = this.#early;
    this.#early = null;
    for (const [type, piece] of early) {
      if (piece.job_id === jobId && this.#answer === answer) this.#show(type, piece);
    }
  }

  #show(type, piece) {
    this.#answer.take(type, piece);
    this.#follow.grown();
    if (this.#answer.done) this.#end();
  }

  #end() {
    const answer = this.#answer;
    this.#answer = null;
    this.#early = null;
    // A turn that failed or was stopped before its first word is not part of the conversation.
    if (answer.text) {
      this.#turns.push([
        { role: "user", content: answer.prompt },
        { role: "assistant", content: answer.text },
      ]);
    }
    byId("chat-news").textContent = answer.text || answer.summary;
    const hadFocus = document.activeElement === byId("stop");
    byId("stop").hidden = true;
    byId("ask").hidden = false;
    if (hadFocus) byId("prompt").focus();
    this.#follow.grown();
  }

  #stop() {
    const answer = this.#answer;
    if (!answer || answer.stopping) return;
    answer.stop();
    if (answer.jobId) this.#cancel(answer.jobId);
  }

  async #cancel(jobId) {
    try {
      await this.#publisher.cancel(jobId);
    } catch (error) {
      if (!(error instanceof Problem)) throw error;
      showProblem(byId("chat-problem"), error);
      if (this.#answer?.jobId === jobId) this.#answer.stopping = false;
    }
  }

  #clear() {
    this.#stop();
    if (this.#answer) this.#end();
    this.#turns = [];
    byId("chat").replaceChildren();
    byId("chat-empty").hidden = false;
    byId("chat-problem").replaceChildren();
    byId("prompt").focus();
  }
}

/** The messages of the last turns (a question with its answer) that are short enough to be sent along. */
function recent(turns) {
  const encoder = new TextEncoder();
  let left = HISTORY_BYTES;
  const first = turns.findLastIndex((turn) => {
    for (const { content } of turn) left -= encoder.encode(content).length;
    return left < 0;
  });
  return turns.slice(first + 1).flat();
}
