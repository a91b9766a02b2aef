import type { Activation } from "./handles.js";
import { checkColumns, checkReshape, checkRowRange } from "./shapes.js";

/** A rectangle of a block of f32: element (r, c) is at `offset + r * stride + c`. What backends hand out, each with blocks of its own. */
export abstract class View<Block> implements Activation {
  constructor(
    readonly block: Block,
    readonly offset: number,
    readonly stride: number,
    readonly rows: number,
    readonly cols: number,
  ) {}

  columns(start: number, count: number): this {
    checkColumns(this, start, count);
    return this.#part(this.offset + start, this.rows, count);
  }

  rowRange(start: number, count: number): this {
    checkRowRange(this, start, count);
    return this.#part(this.offset + start * this.stride, count, this.cols);
  }

  reshape(cols: number): this {
    checkReshape(this, this.stride, cols);
    return this.#part(this.offset, (this.rows * this.cols) / cols, cols, cols);
  }

  #part(offset: number, rows: number, cols: number, stride = this.stride): this {
    const Own = this.constructor as new (
      block: Block,
      offset: number,
      stride: number,
      rows: number,
      cols: number,
    ) => this;
    return new Own(this.block, offset, stride, rows, cols);
  }
}
