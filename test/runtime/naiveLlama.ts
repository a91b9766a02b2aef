import { MemoryCheckpoint } from "../model/memoryCheckpoint.js";

/** A token whose key is looked at: where it was run, and what its key counts as. */
export interface Seen {
  readonly position: number;
  readonly turn: number;
  /** Factor of its share of the softmax; default 1. */
  readonly weight?: number;
}

/** What a step leaves: logits, and by layer and query head what attention gave to each position. */
export interface Step {
  readonly logits: Float64Array;
  readonly shares: readonly (readonly ReadonlyMap<number, number>[])[];
}

/**
 * A tiny Llama in float64 that keeps the unrotated keys and the values of every token, so that a test can say freely which
 * of them a query sees and at which distance. One token at a time.
 */
export class NaiveLlama {
  /** What rotated keys, or values, of a head come back as from where they are held; rows in the order of what is seen. */
  held: (part: "key" | "value", rows: readonly Float64Array[]) => readonly Float64Array[] = (_, rows) => rows;
  /** Told what enters the attention of every layer. */
  onInput: (layer: number, input: Float64Array) => void = () => {};
  /** Factor of what a part of a layer adds to the residual stream that enters it. */
  gate: (layer: number, part: "block" | "attention" | "mlp", x: Float64Array) => number = () => 1;
  readonly layers: number;
  readonly heads: number;
  readonly kvHeads: number;
  readonly #headDim: number;
  readonly #theta: number;
  readonly #epsilon: number;
  readonly weights = new Map<string, Float32Array | Float64Array>();
  /** [layer][position] */
  readonly #keys: Float64Array[][];
  readonly #values: Float64Array[][];

  constructor(readonly checkpoint: MemoryCheckpoint) {
    const config = checkpoint.config as Record<string, number> & { rope_parameters: { rope_theta: number } };
    this.layers = config.num_hidden_layers;
    this.heads = config.num_attention_heads;
    this.kvHeads = config.num_key_value_heads;
    this.#headDim = config.head_dim;
    this.#theta = config.rope_parameters.rope_theta;
    this.#epsilon = config.rms_norm_eps;
    for (const name of checkpoint.tensors.keys()) this.weights.set(name, checkpoint.values(name));
    this.#keys = Array.from({ length: this.layers }, () => []);
    this.#values = Array.from({ length: this.layers }, () => []);
  }

  /** One of the golden checkpoints that are built like Llama. */
  static async golden(name: string): Promise<NaiveLlama> {
    return new NaiveLlama(await MemoryCheckpoint.golden(name));
  }

  /** Key head of a query head. */
  keyHead(head: number): number {
    return Math.floor(head / (this.heads / this.kvHeads));
  }

  /** @param turn what the query counts as @param see what it sees, itself included */
  step(id: number, turn: number, see: (layer: number, head: number) => Iterable<Seen>): Step {
    const embedding = this.weights.get("model.embed_tokens.weight")!;
    const size = embedding.length / (this.checkpoint.config.vocab_size as number);
    let x = Float64Array.from(embedding.slice(id * size, (id + 1) * size));
    const shares: Map<number, number>[][] = [];
    for (let layer = 0; layer < this.layers; layer++) {
      const before = x;
      const ofBlock = this.gate(layer, "block", x);
      const ofAttention = this.gate(layer, "attention", x);
      const of = (name: string) => `model.layers.${layer}.${name}.weight`;
      const input = this.#norm(x, of("input_layernorm"));
      this.onInput(layer, input);
      const q = this.#product(input, of("self_attn.q_proj"));
      this.#keys[layer].push(this.#product(input, of("self_attn.k_proj")));
      this.#values[layer].push(this.#product(input, of("self_attn.v_proj")));
      const mixed = new Float64Array(q.length);
      shares.push(
        Array.from({ length: this.heads }, (_, head) => this.#attend(mixed, q, layer, head, turn, see(layer, head))),
      );
      x = sum(x, this.#product(mixed, of("self_attn.o_proj")), ofAttention);
      const ofMlp = this.gate(layer, "mlp", x);
      const inner = this.#norm(x, of("post_attention_layernorm"));
      const up = this.#product(inner, of("mlp.up_proj"));
      const gated = this.#product(inner, of("mlp.gate_proj")).map((g, i) => (g / (1 + Math.exp(-g))) * up[i]);
      x = sum(x, this.#product(gated, of("mlp.down_proj")), ofMlp);
      x = x.map((value, i) => before[i] + ofBlock * (value - before[i]));
    }
    return { logits: this.#product(this.#norm(x, "model.norm.weight"), "lm_head.weight"), shares };
  }

  #attend(mixed: Float64Array, q: Float64Array, layer: number, head: number, turn: number, seen: Iterable<Seen>) {
    const size = this.#headDim;
    const part = (row: Float64Array, h: number) => row.subarray(h * size, (h + 1) * size);
    const query = this.#rotated(part(q, head), turn);
    const tokens = [...seen];
    const own = (rows: readonly Float64Array[][], position: number) => part(rows[layer][position], this.keyHead(head));
    const keys = this.held(
      "key",
      tokens.map(({ position, turn }) => this.#rotated(own(this.#keys, position), turn)),
    );
    const values = this.held(
      "value",
      tokens.map(({ position }) => own(this.#values, position)),
    );
    const scores = keys.map(
      (key, n) =>
        (tokens[n].weight ?? 1) * Math.exp(query.reduce((dot, a, i) => dot + a * key[i], 0) / Math.sqrt(size)),
    );
    const total = scores.reduce((a, b) => a + b, 0);
    const shares = new Map(tokens.map(({ position }, n) => [position, scores[n] / total]));
    for (const [n, value] of values.entries()) {
      for (let i = 0; i < size; i++) mixed[head * size + i] += (scores[n] / total) * value[i];
    }
    return shares;
  }

  #rotated(row: Float64Array, turn: number): Float64Array {
    const half = row.length / 2;
    return row.map((value, i) => {
      const angle = turn * this.#theta ** (-(i % half) / half);
      const other = i < half ? -row[i + half] : row[i - half];
      return value * Math.cos(angle) + other * Math.sin(angle);
    });
  }

  #norm(x: Float64Array, name: string): Float64Array {
    const weight = this.weights.get(name)!;
    const mean = x.reduce((total, value) => total + value * value, 0) / x.length;
    return x.map((value, i) => (value * weight[i]) / Math.sqrt(mean + this.#epsilon));
  }

  #product(x: Float64Array, name: string): Float64Array {
    const weight = this.weights.get(name)!;
    const result = new Float64Array(weight.length / x.length);
    for (let row = 0; row < result.length; row++) {
      for (let i = 0; i < x.length; i++) result[row] += weight[row * x.length + i] * x[i];
    }
    return result;
  }
}

const sum = (a: Float64Array, b: Float64Array, by: number) => a.map((value, i) => value + by * b[i]);

/** A text of `length` arbitrary tokens for the golden checkpoints. */
export const arbitraryText = (length: number) =>
  Uint32Array.from({ length }, (_, i) => (i * i * 37 + i * 101 + 11) % 512);

/** The largest difference of two rows of logits. */
export const distance = (a: ArrayLike<number>, b: ArrayLike<number>): number =>
  Math.max(...Array.from(a, (value, i) => Math.abs(value - b[i])));
