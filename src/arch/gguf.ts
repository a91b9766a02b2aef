/** How files of llama.cpp name a family and its tensors. */
export interface GgufFamily {
  /** `general.architecture`. */
  architecture: string;
  /** Of two families with one architecture, this one has files with a sliding window. */
  windowed?: true;
  /** Rows of q and k of a head are in the order of neighbours, (2i, 2i + 1), where the checkpoint rotates halves. */
  rotaryNeighbours?: true;
  /** Has no key of its own for biases of attention, which the config tells of. */
  optionalAttentionBias?: true;
  /** Stems of tensors in both spellings, [GGUF, Hugging Face]; what ends them is `.weight` or `.bias` in both. */
  names: {
    outside: readonly (readonly [string, string])[];
    /** Behind `blk.N.` and behind `layers` + `.N.` */
    inBlock: readonly (readonly [string, string])[];
    /** What stands before the number of a block in the checkpoint: "model.layers". */
    layers: string;
  };
}
