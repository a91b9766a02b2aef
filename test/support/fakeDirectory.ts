interface FakeFile {
  bytes: Uint8Array<ArrayBuffer>;
  open: boolean;
  /** Default: when it is asked for. */
  lastModified?: number;
}

/** As much of a private file system as the store uses, in memory. The real one is used by test/platform/studio.test.ts. */
export class FakeDirectory {
  readonly kind = "directory";
  readonly files = new Map<string, FakeFile>();
  readonly directories = new Map<string, FakeDirectory>();
  /** Bytes that may be written from now on, in all directories. */
  readonly room: { bytes: number };

  constructor(room = { bytes: Number.POSITIVE_INFINITY }) {
    this.room = room;
  }

  async getDirectoryHandle(name: string, { create = false } = {}) {
    const found = this.directories.get(name) ?? (create ? new FakeDirectory(this.room) : undefined);
    if (found === undefined) throw new DOMException("no such directory", "NotFoundError");
    this.directories.set(name, found);
    return found;
  }

  async getFileHandle(name: string, { create = false } = {}) {
    const file = this.files.get(name) ?? (create ? { bytes: new Uint8Array(0), open: false } : undefined);
    if (file === undefined) throw new DOMException("no such file", "NotFoundError");
    this.files.set(name, file);
    const { room } = this;
    const resize = (size: number) => {
      const resized = new Uint8Array(size);
      resized.set(file.bytes.subarray(0, size));
      file.bytes = resized;
    };
    return {
      getFile: async () => new File([file.bytes], name, { lastModified: file.lastModified }),
      async createWritable() {
        const pieces: Uint8Array<ArrayBuffer>[] = [];
        return {
          async write(piece: Uint8Array<ArrayBuffer>) {
            pieces.push(piece);
          },
          async close() {
            file.bytes = new Uint8Array(await new Blob(pieces).arrayBuffer());
          },
          async abort() {},
        };
      },
      async createSyncAccessHandle() {
        if (file.open) throw new DOMException("open already", "NoModificationAllowedError");
        file.open = true;
        return {
          getSize: () => file.bytes.length,
          truncate: resize,
          read(bytes: Uint8Array, { at }: { at: number }) {
            const part = file.bytes.subarray(at, at + bytes.length);
            bytes.set(part);
            return part.length;
          },
          write(bytes: Uint8Array, { at }: { at: number }) {
            room.bytes -= bytes.length;
            if (room.bytes < 0) throw new DOMException("full", "QuotaExceededError");
            if (at + bytes.length > file.bytes.length) resize(at + bytes.length);
            file.bytes.set(bytes, at);
            return bytes.length;
          },
          flush() {},
          close() {
            file.open = false;
          },
        };
      },
    };
  }

  async removeEntry(name: string) {
    if (!this.directories.delete(name) && !this.files.delete(name)) throw new DOMException("no such", "NotFoundError");
  }

  async *entries() {
    for (const name of this.files.keys()) yield [name, await this.getFileHandle(name)] as const;
  }

  async *values() {
    yield* this.directories.values();
  }
}
