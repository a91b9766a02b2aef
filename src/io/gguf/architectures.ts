/** What tells the architectures of GGUF files apart. */
export interface GgufArchitecture {
  /** `general.architecture`. */
  id: string;
  /** q and k rows of a head are in the order of neighbours. */
  rotaryNeighbours: boolean;
  /** Has no key of its own in the file, but biases that the config tells of. */
  optionalAttentionBias: boolean;
}

export const ggufArchitectures: readonly GgufArchitecture[] = [
  { id: "llama", rotaryNeighbours: true, optionalAttentionBias: true },
  { id: "qwen2", rotaryNeighbours: false, optionalAttentionBias: false },
  { id: "qwen3", rotaryNeighbours: false, optionalAttentionBias: true },
];

/** `model_type` of config.json → `general.architecture`. */
export const architectureOf: Readonly<Record<string, string>> = {
  llama: "llama",
  mistral: "llama",
  qwen2: "qwen2",
  qwen3: "qwen3",
};
