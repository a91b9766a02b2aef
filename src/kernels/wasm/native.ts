/**
 * Sets of native kernels: AVX2 with FMA, the same with AVX-VNNI, AVX-512 with VNNI, VBMI and VBMI2, and that with AMX; on ARM NEON, the
 * same with its dot products, and with both those and its products of matrices.
 */
export type NativeSet = "avx2" | "avxvnni" | "avx512" | "amx" | "neon" | "dotprod" | "i8mm";

/** Does a thread's work on the record at `record` with a kernel of layout.ts, or answers 0: the kernel does not know that record. */
export type NativeCall = (kernel: number, record: number) => number;

/** An addon that was found to fit this machine and these records. */
export interface NativeKernels {
  /** Where it lies, for the workers. */
  file: string;
  set: NativeSet;
  roundsTwice: boolean;
  /** For people: "AVX-512". */
  name: string;
  /** Bits of the kernels that it has. */
  mask: number;
  /** @param memory over the memory of an instance of the WebAssembly kernels, which must live as long as what is returned */
  attach(memory: Uint8Array, thread: number, threads: number): NativeCall;
  /** Asks the system to hold bytes that will all be written in large pages, where it has any. */
  useLargePages(bytes: Uint8Array): void;
}
