// A checkpoint of bf16 numbers that is pruned while it is read, so that sparse weights of any model can be timed without a file of them.

/** Zeroes the smallest magnitudes of a row of bf16 numbers, by counting. */
function pruneRow(row, share) {
  // Magnitudes that share exponent and three bits count as equal; the first of them go.
  const counts = new Uint32Array(0x800);
  for (const word of row) counts[(word & 0x7fff) >> 4]++;
  let left = Math.round(row.length * share);
  let cut = 0;
  for (; counts[cut] <= left; cut++) left -= counts[cut];
  for (let i = 0; i < row.length; i++) {
    const magnitude = (row[i] & 0x7fff) >> 4;
    if (magnitude < cut || (magnitude === cut && left-- > 0)) row[i] = 0;
  }
}

function pruneFours(row) {
  for (let i = 0; i < row.length; i += 4) {
    for (let drop = 0; drop < 2; drop++) {
      let least = -1;
      for (let k = i; k < i + 4; k++) {
        const magnitude = row[k] & 0x7fff;
        if (magnitude !== 0 && (least < 0 || magnitude < (row[least] & 0x7fff))) least = k;
      }
      if (least >= 0) row[least] = 0;
    }
  }
}

const isBlockMatrix = (name) => name.endsWith("_proj.weight");

/**
 * The checkpoint with pruned matrices; rows are read whole.
 * @param structure "dense", "2:4", "smaller" (the first neurons and heads of every block), or what else is pruned row by row
 * @param share of the weights of a row, or of neurons and heads, from 0 to 1
 * @param head whether the output head is pruned too
 */
export function pruned(checkpoint, { structure, share = 0, head = false }) {
  if (structure === "dense") return checkpoint;
  if (structure === "smaller") return smaller(checkpoint, share);
  const prune = structure === "2:4" ? pruneFours : (row) => pruneRow(row, share);
  return {
    ...bound(checkpoint),
    async read(name, byteOffset, byteLength, into) {
      const bytes = await checkpoint.read(name, byteOffset, byteLength, into);
      if (isBlockMatrix(name) || (head && name === "lm_head.weight")) {
        const words = new Uint16Array(bytes.buffer, bytes.byteOffset, bytes.byteLength / 2);
        const cols = checkpoint.tensors.get(name).shape[1];
        for (let r = 0; r < words.length; r += cols) prune(words.subarray(r, r + cols));
      }
      return bytes;
    },
  };
}

/** The first neurons and heads of every block. */
function smaller(checkpoint, share) {
  const { config } = checkpoint;
  const keep = (n) => Math.round(n * (1 - share));
  const [heads, kvHeads, ffn] = ["num_attention_heads", "num_key_value_heads", "intermediate_size"].map((key) =>
    keep(config[key]),
  );
  const headDim = config.head_dim;
  const rowsOf = {
    q_proj: heads * headDim,
    k_proj: kvHeads * headDim,
    v_proj: kvHeads * headDim,
    gate_proj: ffn,
    up_proj: ffn,
  };
  const colsOf = { o_proj: heads * headDim, down_proj: ffn };
  const tensors = new Map(checkpoint.tensors);
  for (const [name, info] of tensors) {
    const projection = name.split(".").at(-2);
    const [rows, cols] = info.shape;
    if (isBlockMatrix(name))
      tensors.set(name, { ...info, shape: [rowsOf[projection] ?? rows, colsOf[projection] ?? cols] });
  }
  return {
    ...bound(checkpoint),
    config: { ...config, num_attention_heads: heads, num_key_value_heads: kvHeads, intermediate_size: ffn },
    tensors,
    async read(name, byteOffset = 0, byteLength, into) {
      const [, cols] = tensors.get(name).shape;
      const [, stored] = checkpoint.tensors.get(name).shape;
      if (cols === stored || stored === undefined) return checkpoint.read(name, byteOffset, byteLength, into);
      const rows = byteLength / (2 * cols);
      const bytes = await checkpoint.read(name, (byteOffset / cols) * stored, rows * stored * 2);
      for (let r = 0; r < rows; r++) into.set(bytes.subarray(r * stored * 2, r * stored * 2 + cols * 2), r * cols * 2);
      return into;
    },
  };
}

const bound = (checkpoint) => ({
  location: checkpoint.location,
  files: checkpoint.files,
  config: checkpoint.config,
  artifact: checkpoint.artifact,
  tensors: checkpoint.tensors,
  readFloat32: (name) => checkpoint.readFloat32(name),
  readJson: (name) => checkpoint.readJson(name),
  close: () => checkpoint.close(),
});
