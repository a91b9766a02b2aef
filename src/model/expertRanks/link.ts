/** A way between two ranks on which whole frames arrive in the order in which they were sent. */
export interface RankLink {
  send(frame: Uint8Array): void;
  /** Called once, before the first frame may arrive. @param onEnd the other side is gone, for a reason or as it was asked to */
  listen(onFrame: (frame: Uint8Array) => void, onEnd: (reason?: Error) => void): void;
  close(): void;
}

/** A message port of a worker or a page, in Node.js or in a browser. */
export interface RankPort {
  postMessage(message: unknown, transfer: ArrayBuffer[]): void;
  addEventListener(type: "message", listener: (event: { data: unknown }) => void): void;
  addEventListener(type: "close", listener: () => void): void;
  start(): void;
  close(): void;
}

/** A link over a `MessagePort`. Frames are handed over, not copied. */
export function portLink(port: RankPort): RankLink {
  return {
    send: (frame) => port.postMessage(frame, [frame.buffer as ArrayBuffer]),
    listen(onFrame, onEnd) {
      port.addEventListener("message", ({ data }) => {
        if (data instanceof Uint8Array) onFrame(data);
      });
      port.addEventListener("close", () => onEnd());
      port.start();
    },
    close: () => port.close(),
  };
}
