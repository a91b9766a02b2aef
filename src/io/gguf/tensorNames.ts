/** Names of tensors in GGUF files and in Hugging Face checkpoints, for the Llama-like decoders. */

const outside: readonly [gguf: string, huggingFace: string][] = [
  ["token_embd", "model.embed_tokens"],
  ["output_norm", "model.norm"],
  ["output", "lm_head"],
];

const inBlock: readonly [gguf: string, huggingFace: string][] = [
  ["attn_norm", "input_layernorm"],
  ["attn_q", "self_attn.q_proj"],
  ["attn_k", "self_attn.k_proj"],
  ["attn_v", "self_attn.v_proj"],
  ["attn_output", "self_attn.o_proj"],
  ["attn_q_norm", "self_attn.q_norm"],
  ["attn_k_norm", "self_attn.k_norm"],
  ["ffn_norm", "post_attention_layernorm"],
  ["ffn_gate", "mlp.gate_proj"],
  ["ffn_up", "mlp.up_proj"],
  ["ffn_down", "mlp.down_proj"],
];

const toHuggingFace = { outside: new Map(outside), inBlock: new Map(inBlock) };
const swap = ([a, b]: readonly [string, string]): [string, string] => [b, a];
const toGguf = { outside: new Map(outside.map(swap)), inBlock: new Map(inBlock.map(swap)) };

const ggufPattern = /^(?:blk\.(\d{1,5})\.)?(\w+)\.(weight|bias)$/;
const huggingFacePattern = /^(?:model\.layers\.(\d{1,5})\.)?([\w.]+)\.(weight|bias)$/;

/** undefined for a tensor that these decoders do not have. */
export function huggingFaceName(name: string): string | undefined {
  const [, layer, stem, kind] = ggufPattern.exec(name) ?? [];
  if (stem === undefined) return undefined;
  const found = toHuggingFace[layer === undefined ? "outside" : "inBlock"].get(stem);
  return found && `${layer === undefined ? "" : `model.layers.${layer}.`}${found}.${kind}`;
}

/** undefined for a tensor that these decoders do not have. */
export function ggufName(name: string): string | undefined {
  const [, layer, stem, kind] = huggingFacePattern.exec(name) ?? [];
  if (stem === undefined) return undefined;
  const found = toGguf[layer === undefined ? "outside" : "inBlock"].get(stem);
  return found && `${layer === undefined ? "" : `blk.${layer}.`}${found}.${kind}`;
}
