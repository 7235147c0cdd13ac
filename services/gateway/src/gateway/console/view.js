/** The element with this id; the page has it. */
export const byId = (id) => document.getElementById(id);

/** A new element. Children are elements or text: text never becomes markup. */
export function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

/** What `text` says as JSON, or null where it is none. */
export function json(text) {
  try {
    return JSON.parse(text);
  } catch {
    return null;
  }
}

/** Shows `problem` (title, detail, field, the right that would do, trace) in `place`. */
export function showProblem(place, problem) {
  const box = element("div", { class: "problem" }, element("strong", {}, problem.title));
  if (problem.detail) box.append(element("p", {}, problem.detail));
  const facts = [
    problem.field && `field: ${problem.field}`,
    problem.needed && `needed: ${problem.needed}`,
    problem.reason && `reason: ${problem.reason}`,
    problem.status && `status ${problem.status}`,
    problem.traceId && `trace ${problem.traceId}`,
  ].filter(Boolean);
  if (facts.length) box.append(element("p", { class: "facts-line" }, facts.join(" · ")));
  place.replaceChildren(box);
}

/** Keeps `view` at its end as it grows, until someone scrolls up. */
export class Follow {
  following = true;
  #view;
  #onChange;
  #seen = { top: 0, content: 0, window: 0 };

  constructor(view, onChange = () => {}) {
    this.#view = view;
    this.#onChange = onChange;
    view.addEventListener("scroll", () => this.#scrolled(), { passive: true });
    new ResizeObserver(() => this.grown()).observe(view);
  }

  /** The content grew: shows its end, if that was being followed. */
  grown() {
    if (this.following) this.#view.scrollTop = this.#view.scrollHeight;
    this.#look();
  }

  /** Goes to the end and follows it again. */
  resume() {
    this.#set(true);
    this.grown();
  }

  #scrolled() {
    const before = this.#seen;
    const now = this.#look();
    if (now.content - now.top - now.window < 24) this.#set(true);
    // Only an unchanged layout tells that someone scrolled: browsers also move the position when a box is resized.
    else if (now.top < before.top && now.content === before.content && now.window === before.window) this.#set(false);
    else this.grown();
  }

  #look() {
    const { scrollTop: top, scrollHeight: content, clientHeight: window } = this.#view;
    this.#seen = { top, content, window };
    return this.#seen;
  }

  #set(following) {
    if (following === this.following) return;
    this.following = following;
    this.#onChange(following);
  }
}

/** Copies what `input` holds; gives false where the browser lets only the user copy, with the text selected for it. */
export async function copyText(input) {
  try {
    await navigator.clipboard.writeText(input.value);
    return true;
  } catch {
    input.select();
    return false;
  }
}
