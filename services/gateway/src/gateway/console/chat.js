import { Answer } from "./answer.js";
import { Problem } from "./api.js";
import { Tidegate } from "./client/index.js";
import { forgetJob, onOtherTab, rememberedJob, rememberJob } from "./memory.js";
import { byId, element, Follow, json, showProblem } from "./view.js";

/** With its answer, this fits a local model's context of 2,048 tokens even where each byte is a token. */
const HISTORY_BYTES = 1_500;
const TYPES = new Set(["ai_response", "ai_reasoning", "ai_restart", "ai_error", "ai_progress"]);

/**
 * The chat: one question at a time. An answer is watched on its job's own stream, which is remembered: a page that is
 * loaded again, and every other tab, shows the same answer from its start.
 */
export class ChatPanel {
  #publisher;
  #connect;
  #session;
  #follow;
  #answer = null;
  #turns = [];

  constructor(publisher, connect, session) {
    this.#publisher = publisher;
    this.#connect = connect;
    this.#session = session;
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
    this.#restore();
    onOtherTab((job) => {
      if (!job) this.#reset();
      else if (!this.#answer) this.#restore();
    });
  }

  async #ask() {
    const prompt = byId("prompt").value.trim();
    if (!prompt || this.#answer) return;
    byId("chat-problem").replaceChildren();
    const answer = this.#begin(prompt);
    byId("prompt").value = "";
    try {
      const messages = [...recent(this.#turns), { role: "user", content: prompt }];
      // To a client that listens, the events of the answer go too: the log shows them.
      const target = this.#connect.running && this.#connect.clientId ? { client_id: this.#connect.clientId } : {};
      const { job_id: jobId } = await this.#publisher.chat({ messages, ...target });
      this.#accepted(answer, jobId);
    } catch (error) {
      if (!(error instanceof Problem)) throw error;
      answer.fail(error.title, error.detail);
      if (this.#answer === answer) this.#end();
    }
  }

  #begin(prompt) {
    this.#answer = new Answer(prompt);
    byId("chat").append(element("div", { class: "said" }, prompt), this.#answer.box);
    byId("chat-empty").hidden = true;
    byId("ask").hidden = true;
    byId("stop").hidden = false;
    this.#follow.resume();
    return this.#answer;
  }

  #accepted(answer, jobId) {
    answer.jobId = jobId;
    if (answer.stopping) this.#cancel(jobId);
    if (this.#answer !== answer) return; // "New chat" was faster
    rememberJob({ jobId, prompt: answer.prompt });
    this.#watch(answer);
  }

  /** Follows the answer's own stream from its start. It ends with the answer, and is not opened again. */
  #watch(answer) {
    const token = () => this.#session.token;
    const stream = new Tidegate(`api/sse/jobs/${encodeURIComponent(answer.jobId)}`, { token });
    answer.stream = stream;
    stream.on("event", (event) => {
      const piece = TYPES.has(event.type) && this.#answer === answer ? json(event.data) : null;
      if (piece) this.#show(event.type, piece);
    });
    stream.on("state", ({ name, problem, reason }) => {
      if (name !== "closed" || answer.done || this.#answer !== answer) return;
      answer.fail(problem?.title ?? "The answer can't be had any more", problem?.detail ?? reason);
      forgetJob();
      this.#end();
    });
  }

  /** The answer that was watched last, here or in another tab. */
  #restore() {
    const job = rememberedJob();
    if (!job) return;
    const answer = this.#begin(job.prompt);
    answer.jobId = job.jobId;
    this.#watch(answer);
  }

  #show(type, piece) {
    this.#answer.take(type, piece);
    this.#follow.grown();
    if (this.#answer.done) this.#end();
  }

  #end() {
    const answer = this.#answer;
    this.#answer = null;
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
    forgetJob();
    this.#reset();
    byId("prompt").focus();
  }

  #reset() {
    this.#answer?.stream?.close();
    if (this.#answer) this.#end();
    this.#turns = [];
    byId("chat").replaceChildren();
    byId("chat-empty").hidden = false;
    byId("chat-problem").replaceChildren();
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
