import { findPublisher, Publisher } from "./api.js";
import { ChatPanel } from "./chat.js";
import { ConnectPanel } from "./connect.js";
import { LogPanel } from "./log.js";
import { SendPanel } from "./send.js";
import { byId } from "./view.js";

const found = findPublisher();
found.then(({ url, how }) => {
  byId("publisher").textContent = `${url} (${how})`;
});
const publisher = new Publisher(found.then(({ url }) => url));

const log = new LogPanel();
const connect = new ConnectPanel((event) => log.add(event));
new ChatPanel(publisher, connect);
new SendPanel(publisher, connect);
