import { asked, RequestFault } from "./asking.js";

/** How long a gateway is given to fetch a key that it does not know: an identity provider has a new one. */
const KEYS_SECONDS = 2;

/** The token that each attempt sends: a text, or a function that gives one, at once or later. */
export class Credentials {
  #given;
  #used = "";
  #next = null;
  #askedAgain = false;

  constructor(given) {
    if (given != null && !["string", "function"].includes(typeof given)) {
      throw new TypeError("token: a text, or a function that gives one");
    }
    this.#given = given;
  }

  /** The next attempt's token, "" for none. Throws RequestFault. */
  async next() {
    this.#used = this.#next ?? (await this.#ask());
    this.#next = null;
    return this.#used;
  }

  /** Another token than the one in use, "" if there is none. Throws RequestFault. */
  async other() {
    const token = typeof this.#given === "function" ? await this.#ask() : "";
    return token === this.#used ? "" : token;
  }

  /** The next attempt sends `token`, and nobody is asked. */
  use(token) {
    this.#next = token;
  }

  /** The gateway took the token. */
  accepted() {
    this.#askedAgain = false;
  }

  /** After how many seconds a refused client asks for a token once more; null if it does not. */
  onceMore({ status, reason }) {
    const seconds = { expired: 0, kid: KEYS_SECONDS }[reason];
    if (status !== 401 || seconds === undefined || typeof this.#given !== "function" || this.#askedAgain) return null;
    this.#askedAgain = true;
    return seconds;
  }

  async #ask() {
    return sendable(await asked("token", this.#given));
  }
}

/** `token` as it is sent, without the line end of its file; "" for none. Throws RequestFault, which does not tell it. */
export function sendable(token) {
  if (token === undefined || token === null || token === "") return "";
  if (typeof token !== "string" || !/^[\x21-\x7e]+$/.test(token.trim())) {
    throw new RequestFault("the token can't be sent", "it has to be a text without blanks, of ASCII alone", true);
  }
  return token.trim();
}
