// Server-sent events over fetch: EventSource cannot carry a token.

import { request } from "/assets/api.js";

const firstWait = 500;
const longestWait = 10_000;

/**
 * follow reads /v1/events until the signal aborts, connecting again when the stream breaks.
 * handlers: one function by event name; live(state) is told open and lost.
 */
export async function follow(path, handlers, live, signal) {
  let wait = firstWait;
  while (!signal.aborted) {
    try {
      const response = await request(path, { headers: { Accept: "text/event-stream" }, signal });
      live("open");
      wait = firstWait;
      await read(response.body.getReader(), handlers);
    } catch (error) {
      if (signal.aborted) return;
    }
    live("lost");
    await new Promise((resolve) => setTimeout(resolve, wait));
    wait = Math.min(2 * wait, longestWait);
  }
}

async function read(reader, handlers) {
  const decoder = new TextDecoder();
  let text = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    text += decoder.decode(value, { stream: true });
    const frames = text.split("\n\n");
    text = frames.pop();
    for (const frame of frames) dispatch(frame, handlers);
  }
}

function dispatch(frame, handlers) {
  let name = "message";
  let data = "";
  for (const line of frame.split("\n")) {
    if (line.startsWith("event: ")) name = line.slice(7);
    else if (line.startsWith("data: ")) data += line.slice(6);
  }
  if (data === "" || !handlers[name]) return;
  try {
    handlers[name](JSON.parse(data));
  } catch (error) {
    console.error("handling an event", name, error); // one bad frame must not end the stream
  }
}
