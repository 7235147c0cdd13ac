// Reads a JSON list of streams (base64 pieces) from stdin, writes what the JavaScript client makes of each.
import { readFileSync } from "node:fs";
import { EventParser, readStream } from "../../../clients/js/src/parser.js";

async function parsed(pieces) {
  const events = [];
  const retries = [];
  const parser = new EventParser({
    onEvent: ({ lastEventId, type, data }) => events.push([lastEventId, type, data]),
    onRetry: (milliseconds) => retries.push(milliseconds),
  });
  const body = new ReadableStream({
    start(controller) {
      for (const piece of pieces) controller.enqueue(new Uint8Array(Buffer.from(piece, "base64")));
      controller.close();
    },
  });
  await readStream(body, parser, () => {});
  return { events, retries };
}

const answers = [];
for (const pieces of JSON.parse(readFileSync(0, "utf8"))) answers.push(await parsed(pieces));
process.stdout.write(JSON.stringify(answers));
