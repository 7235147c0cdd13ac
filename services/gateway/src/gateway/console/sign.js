import { asks, identityOf } from "./session.js";
import { byId, element } from "./view.js";

/** The panel in which one signs in with a token or a key, and which shows who that is. */
export class SignPanel {
  #session;

  constructor(session) {
    this.#session = session;
    byId("sign").hidden = !asks;
    if (!asks) return;
    byId("sign-form").addEventListener("submit", (event) => {
      event.preventDefault();
      this.#signIn();
    });
    byId("sign-out").addEventListener("click", () => session.signOut());
    session.on("ask", (why) => this.#ask(why));
    this.#show();
  }

  #ask(why) {
    byId("sign-why").textContent = why;
    byId("sign-form").hidden = false;
  }

  #signIn() {
    const text = byId("token").value.trim().replace(/^(?:TOKEN=|Bearer\s+)/i, "");
    const who = identityOf(text);
    const wrong = !who
      ? "This is neither a key (tgk_…) nor a token (three parts with dots between, which name a user and an end)."
      : who.expires && !(who.expires > new Date())
        ? `This token has expired at ${moment(who.expires)}.`
        : "";
    byId("token").setAttribute("aria-invalid", String(wrong !== ""));
    byId("sign-why").textContent = wrong;
    if (wrong) {
      byId("token").focus();
      return;
    }
    byId("token").value = "";
    this.#session.signIn(text);
    this.#show();
  }

  #show() {
    const { who } = this.#session;
    byId("sign-form").hidden = who !== null;
    byId("signed").hidden = who === null;
    if (!who) return;
    const rows = [["Signed in as", who.name], ["Until", who.expires ? moment(who.expires) : "it is revoked"], ...who.rights];
    byId("sign-facts").replaceChildren(
      ...rows.flatMap(([name, value]) => [element("dt", {}, name), element("dd", {}, element("span", {}, value))]),
    );
  }
}

function moment(date) {
  const today = date.toDateString() === new Date().toDateString();
  return today ? date.toLocaleTimeString() : date.toLocaleString();
}
