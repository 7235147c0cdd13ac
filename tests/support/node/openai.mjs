// Asks a gateway (argument: its base URL) by OpenAI's own client, and writes what came of it as JSON.
import OpenAI from "openai";

const client = new OpenAI({ baseURL: process.argv[2], apiKey: "any", maxRetries: 1, timeout: 20_000 });
const ask = (content, more = {}) =>
  client.chat.completions.create({ model: "scripted", messages: [{ role: "user", content }], ...more });
const found = {};

const whole = await ask("hello");
found.whole = {
  content: whole.choices[0].message.content,
  reason: whole.choices[0].finish_reason,
  usage: whole.usage,
  named: whole.id === `chatcmpl-${whole._request_id}`,
};

found.stream = { content: "", roles: [], reasons: [], usage: null };
for await (const chunk of await ask("hello", { stream: true, stream_options: { include_usage: true } })) {
  for (const { delta, finish_reason } of chunk.choices) {
    found.stream.content += delta.content ?? "";
    if (delta.role) found.stream.roles.push(delta.role);
    if (finish_reason) found.stream.reasons.push(finish_reason);
  }
  found.stream.usage = chunk.usage ?? found.stream.usage;
}

const told = async (asking) => {
  try {
    await asking;
  } catch (error) {
    return { name: error.constructor.name, status: error.status ?? null, code: error.code, param: error.param };
  }
  return null;
};
found.unsupported = await told(ask("hello", { tools: [{ type: "function", function: { name: "f" } }] }));
found.unknownModel = await told(client.models.retrieve("no/such-model"));
found.broken = await told(
  (async () => {
    for await (const _ of await ask("please [fail]", { stream: true }));
  })(),
);

const { data: endless, response } = await ask("[long]", { stream: true }).withResponse();
for await (const chunk of endless) if (chunk.choices[0]?.delta.content) break;
found.cancelled = response.headers.get("x-request-id");

process.stdout.write(JSON.stringify(found));
