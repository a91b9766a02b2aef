// What node-llama-cpp says of known tokens, through its public API alone.

/** Logits that are held at once: the API gives those of a token as a sorted map over the vocabulary. */
const logitsAtOnce = 2 ** 22;

/**
 * Sum of −log p of ids[first + 1], ids[first + 2], … each after all before it.
 * @param sequence a context sequence with room for them; what it held is cleared
 */
export async function negativeLogLikelihood(sequence, ids, first = 0) {
  await sequence.clearHistory();
  if (first > 0) await sequence.controlledEvaluate(Array.from(ids.slice(0, first)));
  let nll = 0;
  let room = 1;
  for (let start = first; start + 1 < ids.length; ) {
    const some = Array.from(ids.slice(start, Math.min(start + room, ids.length - 1)));
    const outputs = await sequence.controlledEvaluate(some.map((id) => [id, { generateNext: { logits: true } }]));
    for (const [i, { next }] of outputs.entries()) nll -= logProbability(next.logits, ids[start + i + 1]);
    room = Math.max(1, Math.floor(logitsAtOnce / outputs[0].next.logits.size));
    start += some.length;
  }
  return nll;
}

/** Logits after `ids`, a map of all tokens with the largest first. */
export async function logitsAfter(sequence, ids) {
  await sequence.clearHistory();
  const items = Array.from(ids, (id, i) => (i + 1 < ids.length ? id : [id, { generateNext: { logits: true } }]));
  return (await sequence.controlledEvaluate(items)).at(-1).next.logits;
}

function logProbability(logits, token) {
  const [largest] = logits.values();
  let sum = 0;
  for (const logit of logits.values()) sum += Math.exp(logit - largest);
  return logits.get(token) - largest - Math.log(sum);
}
