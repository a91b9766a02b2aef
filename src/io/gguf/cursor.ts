import { FormatError } from "../../core/index.js";
import type { ByteSource } from "../byteSource.js";

const pieceBytes = 2 ** 18;

/** Reads a header of unknown length from front to back: little-endian, in pieces, never beyond `limit` bytes. */
export class Cursor {
  readonly #source: ByteSource;
  readonly #limit: number;
  #piece: Uint8Array = new Uint8Array(0);
  #view = new DataView(this.#piece.buffer);
  /** Where the piece begins in the file. */
  #start = 0;
  #at = 0;

  constructor(source: ByteSource, limit: number) {
    this.#source = source;
    this.#limit = Math.min(limit, source.byteLength);
  }

  /** From the start of the file. */
  get position(): number {
    return this.#start + this.#at;
  }

  /** Bytes that the header could still have. */
  get left(): number {
    return this.#limit - this.position;
  }

  /** Makes the next `count` bytes available; nothing is allocated for bytes that the file does not have. */
  async #need(count: number, field: string): Promise<void> {
    if (this.#at + count <= this.#piece.byteLength) return;
    if (count > this.left) {
      throw new FormatError({
        file: this.#source.name,
        field,
        problem: `${count} bytes at byte ${this.position}, where the header has at most ${this.left} left`,
        hint: "The file is cut short or is not a GGUF file",
      });
    }
    this.#start = this.position;
    this.#at = 0;
    this.#piece = await this.#source.read(
      this.#start,
      Math.min(Math.max(count, pieceBytes), this.#limit - this.#start),
    );
    this.#view = new DataView(this.#piece.buffer, this.#piece.byteOffset, this.#piece.byteLength);
  }

  /** Takes `count` bytes; `read` sees them at an offset of a view. Synchronous while they lie in the piece. */
  async take<T>(count: number, field: string, read: (view: DataView, at: number) => T): Promise<T> {
    if (this.#at + count > this.#piece.byteLength) await this.#need(count, field);
    const value = read(this.#view, this.#at);
    this.#at += count;
    return value;
  }

  u32(field: string): Promise<number> {
    return this.take(4, field, (view, at) => view.getUint32(at, true));
  }

  /** @throws FormatError above 2⁵³ */
  async u64(field: string): Promise<number> {
    const value = await this.take(8, field, (view, at) => view.getBigUint64(at, true));
    if (value <= BigInt(Number.MAX_SAFE_INTEGER)) return Number(value);
    throw new FormatError({ file: this.#source.name, field, problem: `number ${value}`, expected: "below 2⁵³" });
  }

  async text(field: string): Promise<string> {
    const length = await this.u64(field);
    const bytes = await this.take(
      length,
      field,
      (view, at) => new Uint8Array(view.buffer, view.byteOffset + at, length),
    );
    return decoder.decode(bytes);
  }
}

// Not strict: some vocabularies hold tokens that are not UTF-8; they cannot be produced from text anyway.
const decoder = new TextDecoder("utf-8", { ignoreBOM: true });
