import { findPublisher, Publisher } from "./api.js";
import { ChatPanel } from "./chat.js";
import { ConnectPanel } from "./connect.js";
import { LogPanel } from "./log.js";
import { SendPanel } from "./send.js";
import { Session } from "./session.js";
import { SignPanel } from "./sign.js";
import { byId } from "./view.js";

const found = findPublisher();
found.then(({ url, how }) => {
  byId("publisher").textContent = `${url} (${how})`;
});
const session = new Session();
const publisher = new Publisher(found.then(({ url }) => url), session);

new SignPanel(session);
const log = new LogPanel();
const connect = new ConnectPanel(session, (event) => log.add(event));
new ChatPanel(publisher, connect, session);
new SendPanel(publisher, connect);
