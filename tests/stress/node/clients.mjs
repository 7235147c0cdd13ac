// Runs clients of clients/js and prints what each gets, a line of JSON for each event and each state.
import { createHmac } from "node:crypto";

import { Tidegate } from "../../../clients/js/src/index.js";

const print = (...facts) => process.stdout.write(JSON.stringify(facts) + "\n");

const part = (value) => Buffer.from(JSON.stringify(value)).toString("base64url");

/** A token with `claims` that is good for a time between two, of one of the secrets: another each time. */
function token({ secrets, claims, seconds: [least, most] }) {
  const now = Date.now() / 1000;
  const times = { iat: Math.floor(now), exp: now + least + Math.random() * (most - least) };
  const text = `${part({ alg: "HS256" })}.${part({ ...claims, ...times })}`;
  const secret = secrets[Math.floor(Math.random() * secrets.length)];
  return `${text}.${createHmac("sha256", secret).update(text).digest("base64url")}`;
}

for (const { url, options, signed } of JSON.parse(process.argv[2])) {
  if (signed) options.token = () => token(signed);
  const client = new Tidegate(url, options);
  client.on("event", ({ type, id, data }) => print(options.clientId, "event", type, id, data));
  client.on("state", ({ name, reason }) => print(options.clientId, "state", name, reason));
}
