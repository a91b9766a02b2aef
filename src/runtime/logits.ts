/** Ids by falling logit, ties by the lowest id; −∞ is left out. Lazy: the first m cost O(n + m·log n). */
export function* descending(logits: Float32Array): Generator<number> {
  const before = (a: number, b: number) => logits[a] > logits[b] || (logits[a] === logits[b] && a < b);
  const heap = Uint32Array.from(logits.keys()).filter((id) => logits[id] > Number.NEGATIVE_INFINITY);
  let size = heap.length;

  const sink = (root: number) => {
    const id = heap[root];
    let hole = root;
    for (;;) {
      let child = 2 * hole + 1;
      if (child >= size) break;
      if (child + 1 < size && before(heap[child + 1], heap[child])) child++;
      if (!before(heap[child], id)) break;
      heap[hole] = heap[child];
      hole = child;
    }
    heap[hole] = id;
  };
  for (let root = (size >> 1) - 1; root >= 0; root--) sink(root);

  while (size > 0) {
    const top = heap[0];
    heap[0] = heap[--size];
    sink(0);
    yield top;
  }
}

/** The id of the largest logit; ties by the lowest id. */
export function argmax(logits: Float32Array): number {
  let best = 0;
  for (let id = 1; id < logits.length; id++) if (logits[id] > logits[best]) best = id;
  return best;
}

export function largest(logits: Float32Array): number {
  return logits[argmax(logits)];
}

/** ln softmax(logits)[id], f64. */
export function logProbability(logits: Float32Array, id: number): number {
  const top = largest(logits);
  let total = 0;
  for (const logit of logits) total += Math.exp(logit - top);
  return logits[id] - top - Math.log(total);
}
