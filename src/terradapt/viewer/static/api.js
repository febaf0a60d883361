// Requests to the server, and what it tells by itself.

export class Refused extends Error {
  constructor(status, answer) {
    super(answer.error || `the server answered ${status}`);
    this.status = status;
    this.fix = answer.fix || "";
  }
}

async function answered(response) {
  const text = await response.text();
  let answer = {};
  try { answer = text ? JSON.parse(text) : {}; } catch { answer = {}; }
  if (!response.ok) throw new Refused(response.status, answer);
  return answer;
}

export async function get(path, signal) {
  return answered(await fetch(path, { credentials: "same-origin", signal }));
}

export async function post(path, body = {}) {
  let response;
  try {
    response = await fetch(path, {
      method: "POST",
      credentials: "same-origin",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify(body),
    });
  } catch {
    throw new Refused(0, { error: "terradapt view does not answer", fix: "look at the terminal it was started in" });
  }
  return answered(response);
}

/** Call handlers by event name; `lost` and `back` when the server goes and comes again. */
export function listen(handlers) {
  const source = new EventSource("/events");
  let gone = false;
  for (const [name, handler] of Object.entries(handlers)) {
    if (name !== "lost" && name !== "back") {
      source.addEventListener(name, (event) => handler(JSON.parse(event.data)));
    }
  }
  source.onerror = () => { if (!gone) { gone = true; handlers.lost(); } };
  source.onopen = () => { if (gone) { gone = false; handlers.back(); } };
}

export function newKey() {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return [...bytes].map((b) => b.toString(16).padStart(2, "0")).join("");
}
