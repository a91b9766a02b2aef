import { FormatError } from "../../core/index.js";
import { byteLengthOf, type DType, elementCount, type TensorInfo, toFloat32 } from "../../tensor/index.js";
import type { RawTensors } from "../encoding/index.js";

/** The raw tensors that one quantised matrix is made of. */
export class MatrixParts {
  /** Names of those that were asked for. */
  readonly used = new Set<string>();

  /**
   * @param stem what all their names begin with
   * @param title of the format, for messages
   */
  constructor(
    readonly stem: string,
    readonly title: string,
    readonly raw: RawTensors,
  ) {}

  fail(problem: string, expected?: string, hint?: string): FormatError {
    return new FormatError({
      file: this.raw.location,
      field: this.stem,
      problem: `quantised by ${this.title}: ${problem}`,
      expected,
      hint,
    });
  }

  /** A part that need not be there. */
  optional(suffix: string, dtypes?: readonly DType[]): TensorInfo | undefined {
    const found = this.raw.info(this.stem + suffix);
    if (found === undefined) return undefined;
    this.used.add(this.stem + suffix);
    if (dtypes !== undefined && !dtypes.includes(found.dtype)) {
      throw this.fail(`its part ${suffix} is ${found.dtype}`, dtypes.join(", "));
    }
    if (elementCount(found.shape) === 0) throw this.fail(`its part ${suffix} is empty`);
    return found;
  }

  /** @throws FormatError where it is missing, of another type or not of `rank` dimensions */
  part(suffix: string, dtypes: readonly DType[], rank?: number): TensorInfo {
    const found = this.optional(suffix, dtypes);
    if (found === undefined) throw this.fail(`its part ${suffix} is missing`, dtypes.join(" or "));
    if (rank === undefined || found.shape.length === rank) return found;
    throw this.fail(`its part ${suffix} has shape [${found.shape.join(", ")}]`, `${rank} dimensions`);
  }

  /** @throws FormatError where it is not of this shape */
  checkShape(suffix: string, { shape }: TensorInfo, wanted: readonly number[]): void {
    if (shape.join() === wanted.join()) return;
    throw this.fail(`its part ${suffix} has shape [${shape.join(", ")}]`, `[${wanted.join(", ")}]`);
  }

  /** Bytes of a part: all of them, or `byteLength` from `byteOffset` on. */
  read(suffix: string, byteOffset = 0, byteLength?: number): Promise<Uint8Array> {
    const name = this.stem + suffix;
    return this.raw.read(name, byteOffset, byteLength ?? byteLengthOf(this.raw.info(name)!) - byteOffset);
  }

  /** Numbers of a part as f32: `count` of them, from `first` on. */
  async numbers(suffix: string, first = 0, count?: number): Promise<Float32Array> {
    const info = this.raw.info(this.stem + suffix)!;
    const length = count ?? elementCount(info.shape) - first;
    const size = byteLengthOf(info) / elementCount(info.shape);
    return toFloat32(info.dtype, await this.read(suffix, first * size, length * size));
  }

  /** Bytes of all parts that were asked for. */
  get storedBytes(): number {
    return [...this.used].reduce((sum, name) => sum + byteLengthOf(this.raw.info(name)!), 0);
  }
}
