import type { Scope } from "./scope.js";

/** One server-sent event. */
export interface ServerEvent {
  readonly event?: string;
  readonly data: object | string;
}

const encoder = new TextEncoder();

/**
 * An answer that goes out as server-sent events. One that fails midway ends with an event that says so.
 * @param scope given back at the end, and when the client goes away
 * @param onError what to send for an error
 */
export function eventResponse(
  events: AsyncIterable<ServerEvent>,
  scope: Scope,
  onError: (error: unknown) => ServerEvent,
): Response {
  const iterator = events[Symbol.asyncIterator]();
  const write = ({ event, data }: ServerEvent) => {
    const text = typeof data === "string" ? data : JSON.stringify(data);
    return encoder.encode(`${event === undefined ? "" : `event: ${event}\n`}data: ${text}\n\n`);
  };
  const body = new ReadableStream<Uint8Array>({
    async pull(controller) {
      try {
        const { done, value } = await iterator.next();
        if (!done) {
          controller.enqueue(write(value));
          return;
        }
      } catch (error) {
        controller.enqueue(write(onError(error)));
      }
      controller.close();
      scope[Symbol.dispose]();
    },
    async cancel() {
      scope[Symbol.dispose]();
      await iterator.return?.();
    },
  });
  return new Response(body, {
    headers: {
      "content-type": "text/event-stream; charset=utf-8",
      "cache-control": "no-cache",
      // nginx would collect the events otherwise.
      "x-accel-buffering": "no",
    },
  });
}
