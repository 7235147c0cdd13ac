import { Problem, problemOf, unreachable } from "./client/index.js";

export { Problem };

/**
 * Where publisher-api is: told by the gateway in the page, else this origin when its API description is there
 * (behind an edge), else this host's port 8001. Gives `{url, how}`; `url` has no slash at its end.
 */
export async function findPublisher() {
  const told = document.querySelector('meta[name="tidegate-publisher"]').content;
  if (told) return { url: new URL(told, document.baseURI).href.replace(/\/+$/, ""), how: "told by the gateway" };
  const here = new URL(".", document.baseURI).href.replace(/\/$/, "");
  try {
    const response = await fetch(`${here}/api/openapi.json`);
    if (response.ok && (await response.json()).openapi) return { url: here, how: "same origin" };
  } catch {
    // not there: the next place is tried
  }
  return { url: `${location.protocol}//${location.hostname}:8001`, how: "its usual port" };
}

/** publisher-api's calls. Each gives the answer's JSON or throws a Problem. */
export class Publisher {
  #url;
  #session;

  /** `url` is a promise: calls made before publisher-api was found wait for it. */
  constructor(url, session) {
    this.#url = url;
    this.#session = session;
  }

  send(event) {
    return this.#call("POST", "/api/sse/send", event);
  }

  broadcast(event) {
    return this.#call("POST", "/api/sse/broadcast", event);
  }

  chat(request) {
    return this.#call("POST", "/api/ai/chat", request);
  }

  cancel(jobId) {
    return this.#call("DELETE", `/api/ai/chat/${encodeURIComponent(jobId)}`);
  }

  async #call(method, path, body) {
    const url = await this.#url;
    const init = { method, headers: this.#session.headers };
    if (body !== undefined) {
      init.headers["Content-Type"] = "application/json";
      init.body = JSON.stringify(body);
    }
    const response = await fetch(url + path, init).catch((error) => {
      throw new Problem({ title: "publisher-api can't be reached", detail: `${url}: ${unreachable(error)}` });
    });
    if (!response.ok) {
      const problem = await problemOf(response);
      if (problem.status === 401) this.#session.refused(problem);
      throw problem;
    }
    return response.status === 204 ? {} : response.json();
  }
}
