// A client of clients/js that writes each event and state as a line of JSON. Arguments: the address, the secret of its
// tokens, their life in seconds, and whose they are, one after the other ("ann,bob"; ann's).
import { createHmac } from "node:crypto";
import { Tidegate } from "../../../clients/js/src/index.js";

const [url, secret, seconds, users = "ann"] = process.argv.slice(2);
const coming = users.split(",");
const encoded = (value) => Buffer.from(typeof value === "string" ? value : JSON.stringify(value)).toString("base64url");

/** As an application's own back end makes them. */
function token() {
  const now = Date.now() / 1_000;
  const claims = { sub: coming.length > 1 ? coming.shift() : coming[0], aud: "tidegate", iat: Math.floor(now), exp: now + Number(seconds), tidegate: { subscribe: ["topic:a"] } };
  const signed = `${encoded({ alg: "HS256" })}.${encoded(claims)}`;
  return `${signed}.${createHmac("sha256", secret).update(signed).digest("base64url")}`;
}

const write = (line) => console.log(JSON.stringify(line));
const client = new Tidegate(url, { topics: "a", token: async () => token() });
client.on("event", ({ type, data }) => write({ type, data }));
client.on("state", ({ name, reason, problem }) => write({ state: name, reason, refused: problem?.reason }));
