// Reads a JSON list of streams (base64 pieces) from stdin, writes what eventsource-parser makes of each.
import { createParser } from "eventsource-parser";
import { readFileSync } from "node:fs";

const answers = JSON.parse(readFileSync(0, "utf8")).map((pieces) => {
  const events = [];
  let lastId = "";
  const parser = createParser({
    onEvent: ({ id, event, data }) => {
      lastId = id ?? lastId;
      events.push([lastId, event || "message", data]);
    },
  });
  const decoder = new TextDecoder();
  for (const piece of pieces) parser.feed(decoder.decode(Buffer.from(piece, "base64"), { stream: true }));
  return events;
});
process.stdout.write(JSON.stringify(answers));
