import type { expand } from "./wgsl/expand.js";
import type { sparseMatvec } from "./wgsl/sparseMatvec.js";
import type { twoOfFourMatvec } from "./wgsl/twoOfFourMatvec.js";

/** The kernels that read one format that leaves zeros out. Without `matvec` its dense form serves. */
export interface SparseKernels {
  readonly expand: ReturnType<typeof expand>;
  readonly matvec?: SparseMatvec;
}

/** A product of one row, and how it is cut. */
export interface SparseMatvec {
  readonly kernel: ReturnType<typeof sparseMatvec> | ReturnType<typeof twoOfFourMatvec>;
  /** About as many workgroups keep a large GPU busy. */
  readonly workgroups: number;
  /** Groups of 32 columns of the largest slice of a workgroup. */
  readonly sliceGroups: number;
}
