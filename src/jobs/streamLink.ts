import { FormatError } from "../core/index.js";
import type { RankLink } from "../model/index.js";

/** Longer frames are no frames of ours: a pass of a prompt has fewer rows. */
const maxFrameBytes = 2 ** 30;

/** What a link needs of `Writable` of Node.js. */
export interface ByteOutput {
  readonly destroyed: boolean;
  readonly writableEnded: boolean;
  write(bytes: Uint8Array): unknown;
  end(): unknown;
  on(event: "error", listener: (error: Error) => void): unknown;
}

/** A link over byte streams: of a child process, or of a TCP connection, which is both. Frames are led by their length, u32. */
export function streamLink(input: AsyncIterable<Uint8Array>, output: ByteOutput): RankLink {
  return {
    send(frame) {
      if (output.destroyed || output.writableEnded) return;
      const length = new Uint8Array(4);
      new DataView(length.buffer).setUint32(0, frame.length, true);
      output.write(length);
      output.write(frame);
    },
    listen(onFrame, onEnd) {
      let ended = false;
      const end = (reason?: Error) => {
        if (!ended) onEnd(reason);
        ended = true;
      };
      // The other side may have gone while we wrote to it; that it has gone is told by its output.
      output.on("error", () => {});
      void readFrames(input, onFrame).then(
        () => end(),
        (error: Error) => end(error),
      );
    },
    close: () => {
      output.end();
    },
  };
}

async function readFrames(input: AsyncIterable<Uint8Array>, onFrame: (frame: Uint8Array) => void): Promise<void> {
  let parts: Uint8Array[] = [];
  let held = 0;
  /** Length of the frame that is being read, once it is known. */
  let due: number | undefined;
  const take = (count: number): Uint8Array => {
    const all = parts.length === 1 ? parts[0] : Buffer.concat(parts);
    parts = all.length === count ? [] : [all.subarray(count)];
    held -= count;
    return all.subarray(0, count);
  };
  for await (const part of input) {
    parts.push(part);
    held += part.length;
    while (held >= (due ?? 4)) {
      if (due === undefined) {
        const bytes = take(4);
        due = new DataView(bytes.buffer, bytes.byteOffset).getUint32(0, true);
        if (due > maxFrameBytes) {
          const problem = `a frame of ${due} bytes`;
          throw new FormatError({ file: "stream between expert ranks", problem, expected: `at most ${maxFrameBytes}` });
        }
      } else {
        // A copy of its own, aligned for the numbers in it.
        const frame = Uint8Array.from(take(due));
        due = undefined;
        onFrame(frame);
      }
    }
  }
}
