import { byId, element, Follow, json } from "./view.js";

const KEPT = 500;
const SHOWN_CHARACTERS = 4_000;
const ONE_LINE = 90;
const NEWS_MS = 4_000;
const QUIET = new Set(["connected", "closing"]);

/**
 * The last events, newest at the end. Pieces of one AI answer that follow each other share a row with a counter.
 *
 * Events only change what is known; the page is brought up to date once a frame, so that a burst costs no more than
 * the rows that are kept of it.
 */
export class LogPanel {
  #rows = [];
  #held = [];
  #total = 0;
  #paused = false;
  #scheduled = false;
  #types = new Set();
  #news = { count: 0, timer: null };
  #follow;

  constructor() {
    this.#follow = new Follow(byId("log-view"), (following) => (byId("log-jump").hidden = following));
    byId("log-jump").addEventListener("click", () => {
      this.#follow.resume();
      byId("log-view").focus();
    });
    byId("log-pause").addEventListener("click", () => this.#pause(!this.#paused));
    byId("log-clear").addEventListener("click", () => this.#clear());
    byId("log-filter").addEventListener("change", () => this.#filter());
  }

  add(event) {
    this.#total += 1;
    const stamped = { ...event, at: new Date() };
    if (this.#paused) {
      this.#held.push(stamped);
      if (this.#held.length > KEPT) this.#held.shift();
    } else {
      this.#keep(stamped);
    }
    this.#schedule();
    this.#tell();
  }

  #keep(event) {
    const last = this.#rows.at(-1);
    const piece = pieceOf(event);
    if (piece && last?.job === piece.job_id && last.event.type === event.type) {
      last.count += 1;
      last.text += piece.content ?? "";
      last.event = event;
      last.changed = true;
      return;
    }
    this.#rows.push({ event, job: piece?.job_id, text: piece?.content ?? "", count: 1, changed: true, item: null });
    if (this.#rows.length > KEPT) this.#rows.shift().item?.remove();
    this.#addType(event.type);
  }

  #schedule() {
    if (this.#scheduled) return;
    this.#scheduled = true;
    requestAnimationFrame(() => {
      this.#scheduled = false;
      this.#draw();
    });
  }

  #draw() {
    const chosen = byId("log-filter").value;
    const fresh = document.createDocumentFragment();
    for (const row of this.#rows) {
      if (!row.changed) continue;
      row.changed = false;
      const item = itemOf(row);
      const last = item.querySelector("details");
      if (last) last.open = row.item?.querySelector("details")?.open ?? false;
      item.hidden = chosen !== "" && row.event.type !== chosen;
      if (row.item) row.item.replaceWith(item);
      else fresh.append(item);
      row.item = item;
    }
    byId("log").append(fresh);
    byId("log-empty").hidden = this.#total > 0;
    byId("log-total").textContent = this.#total ? String(this.#total) : "";
    byId("log-pause").textContent = this.#held.length ? `Resume (${this.#held.length} new)` : this.#paused ? "Resume" : "Pause";
    this.#follow.grown();
  }

  #pause(paused) {
    this.#paused = paused;
    byId("log-pause").setAttribute("aria-pressed", String(paused));
    for (const event of this.#held.splice(0)) this.#keep(event);
    this.#schedule();
  }

  #clear() {
    this.#rows = [];
    this.#held = [];
    this.#total = 0;
    byId("log").replaceChildren();
    this.#follow.resume();
    this.#schedule();
  }

  #filter() {
    const chosen = byId("log-filter").value;
    for (const row of this.#rows) {
      if (row.item) row.item.hidden = chosen !== "" && row.event.type !== chosen;
    }
    this.#follow.resume();
  }

  #addType(type) {
    if (this.#types.has(type)) return;
    this.#types.add(type);
    const option = element("option", { value: type }, type);
    const after = [...byId("log-filter").options].slice(1).find((other) => other.value > type);
    byId("log-filter").add(option, after ?? null);
  }

  /** Says how many events came, in one sentence every few seconds at most. */
  #tell() {
    this.#news.count += 1;
    this.#news.timer ??= setTimeout(() => {
      const { count } = this.#news;
      byId("log-news").textContent = count === 1 ? "1 new event" : `${count} new events`;
      this.#news = { count: 0, timer: null };
    }, NEWS_MS);
  }
}

/** The data of a piece of an AI answer, or null for any other event. */
function pieceOf({ type, data }) {
  if (type !== "ai_response" && type !== "ai_reasoning") return null;
  const piece = json(data);
  return piece?.job_id ? piece : null;
}

function itemOf({ event, job, text, count }) {
  const head = element("div", { class: "row-head" });
  head.append(element("time", { datetime: event.at.toISOString() }, clock(event.at)));
  head.append(element("span", { class: "type", "data-kind": kind(event.type) }, event.type));
  if (count > 1) head.append(element("span", { class: "count", title: `${count} events in a row` }, `× ${count}`));
  if (event.id) head.append(element("code", { class: "id", title: "event id" }, event.id));
  else head.append(element("span", { class: "id", title: "no id: not stored, never replayed" }, "volatile"));
  const item = element("li", { "data-type": event.type }, head);
  const data = dataOf(pretty(event.data));
  if (job) item.append(element("p", { class: "joined" }, text), element("details", {}, element("summary", {}, "Last event"), data));
  else item.append(data);
  return item;
}

function dataOf(text) {
  const block = element("pre", {}, text.slice(0, SHOWN_CHARACTERS));
  if (text.length <= SHOWN_CHARACTERS) return block;
  const more = element("button", { type: "button", class: "quiet" }, `Show all ${text.length} characters`);
  more.addEventListener("click", () => block.replaceChildren(text));
  block.append("…\n", more);
  return block;
}

function kind(type) {
  if (type === "gap" || type === "ai_error" || type === "ai_restart" || type === "expiring") return "warning";
  if (QUIET.has(type)) return "quiet";
  return type.startsWith("ai_") ? "ai" : "plain";
}

function pretty(text) {
  const value = json(text);
  if (value === null || typeof value !== "object") return text;
  // JSON has no line end inside a string, so joining the lines changes nothing but the layout.
  const line = JSON.stringify(value, null, 1).replace(/\n */g, " ");
  return line.length <= ONE_LINE ? line : JSON.stringify(value, null, 2);
}

function clock(date) {
  const two = (number) => String(number).padStart(2, "0");
  const time = `${two(date.getHours())}:${two(date.getMinutes())}:${two(date.getSeconds())}`;
  return `${time}.${String(date.getMilliseconds()).padStart(3, "0")}`;
}
