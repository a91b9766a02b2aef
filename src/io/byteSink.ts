/** Receives the bytes of one new file. Nothing is visible under its name before `commit`. */
export interface ByteSink {
  write(bytes: Uint8Array): Promise<void>;
  /** Makes the file durable under its name. */
  commit(): Promise<void>;
  /** Drops what was written; harmless after `commit`. */
  abort(): Promise<void>;
}

/** A place where files are made: a directory, a map in memory, OPFS. */
export interface FileSinks {
  create(name: string): Promise<ByteSink>;
}

/** Files made in memory, for small models and tests. @param files filled as each file is committed */
export function memorySinks(files: Map<string, Uint8Array>): FileSinks {
  return {
    async create(name) {
      const parts: Uint8Array[] = [];
      return {
        async write(bytes) {
          parts.push(bytes.slice());
        },
        async commit() {
          const total = parts.reduce((sum, part) => sum + part.byteLength, 0);
          const whole = new Uint8Array(total);
          let offset = 0;
          for (const part of parts) {
            whole.set(part, offset);
            offset += part.byteLength;
          }
          files.set(name, whole);
        },
        async abort() {},
      };
    },
  };
}

/** Makes one file: runs `fill` and commits, or aborts when it throws. */
export async function createFile(
  sinks: FileSinks,
  name: string,
  fill: (sink: ByteSink) => Promise<void>,
): Promise<void> {
  const sink = await sinks.create(name);
  try {
    await fill(sink);
    await sink.commit();
  } catch (error) {
    await sink.abort();
    throw error;
  }
}
