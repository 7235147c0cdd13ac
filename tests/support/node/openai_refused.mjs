// Asks a gateway (first argument: its base URL) once for each of the keys in the second, a JSON list of
// {key, model}, by OpenAI's own client, and writes what came of each as JSON.
import OpenAI from "openai";

const found = [];
for (const { key, model } of JSON.parse(process.argv[3])) {
  let requests = 0;
  const counted = (...request) => {
    requests += 1;
    return fetch(...request);
  };
  const client = new OpenAI({ baseURL: process.argv[2], apiKey: key, maxRetries: 1, timeout: 20_000, fetch: counted });
  try {
    await client.chat.completions.create({ model, messages: [{ role: "user", content: "hello" }] });
    found.push(["ok", null, null, requests]);
  } catch (error) {
    found.push([error.constructor.name, error.status ?? null, error.code ?? null, requests]);
  }
}
process.stdout.write(JSON.stringify(found));
