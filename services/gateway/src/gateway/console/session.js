import { json } from "./view.js";

const TOKEN = "tidegate.token";
const LISTS = { subscribe: "May hear", publish: "May publish to", admin: "May administer" };

/** Whether the gateway asks everyone who they are. It says so in the page. */
export const asks = document.querySelector('meta[name="tidegate-auth"]').content === "token";

/**
 * Where this page remembers what it was doing. If everyone is asked who they are, that is this tab's alone, as the token
 * is: whoever comes next finds nothing of it. Storage may be forbidden to the page.
 */
export const storage = () => (asks ? sessionStorage : localStorage);

/** Who uses this tab: a token or a key, kept until the tab is closed, and never in an address. */
export class Session {
  #text = "";
  #listeners = { change: [], ask: [] };

  constructor() {
    try {
      this.#text = sessionStorage.getItem(TOKEN) ?? "";
    } catch {
      // forbidden: it lives as long as the page does
    }
  }

  /** What is sent as `Authorization: Bearer`; "" if nobody has signed in. */
  get token() {
    return this.#text;
  }

  /** The headers that say who asks. */
  get headers() {
    return this.#text ? { Authorization: `Bearer ${this.#text}` } : {};
  }

  /** Who that is, by what the text itself says: the services check it. */
  get who() {
    return identityOf(this.#text);
  }

  /** Another token of the same user goes on where the page is. Another user finds nothing of what was here. */
  signIn(text) {
    const before = this.who;
    const stays = before === null || before.name === identityOf(text)?.name;
    this.#text = text;
    try {
      if (!stays) sessionStorage.clear();
      sessionStorage.setItem(TOKEN, text);
    } catch {
      // see above
    }
    if (!stays) location.reload();
    else this.#tell("change");
  }

  /** Forgets who it was, and what this tab knows through them. */
  signOut() {
    try {
      sessionStorage.clear();
    } catch {
      // see above
    }
    location.reload();
  }

  /** Somebody should sign in, for the reason `why`. */
  ask(why) {
    this.#tell("ask", why);
  }

  /** A service has refused, since it does not know who asks. */
  refused({ reason, detail, title }) {
    this.ask(reason === "missing" ? "Sign in with a token or a key." : `Sign in anew: ${detail || title}.`);
  }

  /** Calls `listener` whenever another token is there (`change`), or one is asked for (`ask`, with the reason). */
  on(what, listener) {
    this.#listeners[what].push(listener);
  }

  #tell(what, ...facts) {
    for (const listener of this.#listeners[what]) listener(...facts);
  }
}

/** `{name, expires, rights}` of a token or a key; null for "" and for what is neither, or is a token without an end. */
export function identityOf(text) {
  const key = /^tgk_([a-z0-9-]{1,32})_[\w-]{43}$/.exec(text);
  if (key) return { name: `key ${key[1]}`, expires: null, rights: [] };
  const claims = claimsOf(text);
  if (typeof claims?.sub !== "string" || typeof claims.exp !== "number") return null;
  const own = Object(claims.tidegate);
  const rights = Object.entries(LISTS).flatMap(([name, label]) => {
    return Array.isArray(own[name]) && own[name].length ? [[label, own[name].join(", ")]] : [];
  });
  if (own.jobs) rights.push(["Jobs", Object.entries(own.jobs).map(([name, limit]) => `${name} ${limit}`).join(", ") || "any"]);
  return { name: claims.sub, expires: new Date(claims.exp * 1_000), rights };
}

function claimsOf(text) {
  const [, payload] = /^[\w-]+\.([\w-]+)\.[\w-]+$/.exec(text) ?? [];
  if (!payload) return null;
  try {
    const bytes = Uint8Array.from(atob(payload.replace(/-/g, "+").replace(/_/g, "/")), (character) => character.charCodeAt(0));
    return json(new TextDecoder().decode(bytes));
  } catch {
    return null;
  }
}
