/**
 * Resolves in a new turn of the event loop, so that timers, sockets and painting get theirs. A zero timeout would do, but
 * browsers stretch repeated ones to 4 ms.
 */
export const nextTurn: () => Promise<void> =
  typeof setImmediate === "function" ? () => new Promise((resolve) => setImmediate(resolve)) : nextMessage;

function nextMessage(): Promise<void> {
  return new Promise((resolve) => {
    const { port1, port2 } = new MessageChannel();
    port1.onmessage = () => {
      port1.close();
      resolve();
    };
    port2.postMessage(undefined);
  });
}

/**
 * What long work calls between its units: gives the event loop a turn, so that a Ctrl-C or a click is noticed even where
 * every await inside the work resolves at once, then throws the signal's reason if it is aborted.
 */
export async function breathe(signal: AbortSignal | undefined): Promise<void> {
  await nextTurn();
  signal?.throwIfAborted();
}
