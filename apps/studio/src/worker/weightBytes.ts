/** Bytes of a model's weights. @param sizes names of its files, and how many bytes each has */
export function weightBytes(sizes: Iterable<readonly [name: string, bytes: number]>): number {
  let sum = 0;
  for (const [name, bytes] of sizes) if (/\.(safetensors|gguf)$/.test(name)) sum += bytes;
  return sum;
}
