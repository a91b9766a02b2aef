/** Read-only random access to bytes: a file, an HTTP resource with ranges, a memory block, an OPFS file. */
export interface ByteSource {
  /** For messages: a path or URL. */
  readonly name: string;
  readonly byteLength: number;
  /**
   * Reads exactly `length` bytes from `offset`.
   * @param into filled and returned when given; must be `length` long. It may be a view of shared memory.
   * @throws FormatError when the range is not inside the source or the source ends early.
   */
  read(offset: number, length: number, into?: Uint8Array): Promise<Uint8Array>;
  close(): Promise<void>;
}

/** The files of one model: a directory, a Hub snapshot, a base URL, a map in memory. */
export interface ModelFiles {
  /** For messages: the directory, URL or Hub id. */
  readonly location: string;
  /** Opens a file by its plain name ("config.json"); undefined when there is none. */
  open(name: string): Promise<ByteSource | undefined>;
  close(): Promise<void>;
}

/** The files of a local model: a directory, or a GGUF file that is seen as one. */
export interface LocalModelFiles extends ModelFiles {
  /** Absolute or relative path of the directory that holds the files. */
  readonly directory: string;
  /** Plain names of all files. */
  names(): Promise<string[]>;
  /** Where a file lies; undefined for one that is made from another (config.json of a GGUF file). */
  pathOf(name: string): string | undefined;
}
