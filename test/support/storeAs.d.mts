export interface Store {
  /** Of a matrix to try it with, where it does not take any. */
  shape?: [rows: number, cols: number];
  /** `quantization_config` of config.json. */
  record: Record<string, unknown>;
  /** The tensors that a matrix is stored as, and the values that they stand for. */
  parts(
    name: string,
    dense: { shape: readonly number[]; values: Float32Array },
  ): {
    raw: { name: string; dtype: string; shape: number[]; bytes: Uint8Array }[];
    expected: Float32Array;
  };
}
export const stores: Record<string, Store>;
export const stackStores: Record<"mxfp4", Store>;
