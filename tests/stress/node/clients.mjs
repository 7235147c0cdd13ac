// Runs clients of clients/js and prints what each gets, a line of JSON for each event and each state.
import { Tidegate } from "../../../clients/js/src/index.js";

const print = (...facts) => process.stdout.write(JSON.stringify(facts) + "\n");

for (const { url, options } of JSON.parse(process.argv[2])) {
  const client = new Tidegate(url, options);
  client.on("event", ({ type, id, data }) => print(options.clientId, "event", type, id, data));
  client.on("state", ({ name, reason }) => print(options.clientId, "state", name, reason));
}
