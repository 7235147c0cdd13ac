/** Wakes and rests `client` as its page is shown, left and back on the network. Gives what undoes it; outside a page, nothing. */
export function followPage(client) {
  if (typeof document === "undefined" || typeof addEventListener !== "function") return () => {};
  const listening = new AbortController();
  const options = { signal: listening.signal };
  // A page that the browser keeps for "back" would keep its socket too, one of the six that a host gets.
  addEventListener("pagehide", () => client.rest(), options);
  addEventListener("online", () => client.wake(true), options);
  addEventListener("pageshow", (event) => client.wake(event.persisted), options);
  const shown = () => {
    if (!document.hidden) client.wake();
  };
  document.addEventListener("visibilitychange", shown, options);
  return () => listening.abort();
}
