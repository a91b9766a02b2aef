import type { LatentSteps } from "../arch/internal.js";
import type { Activation } from "../kernels/index.js";
import { latentQueries, latentSums } from "./buffers.js";
import { append, attendTo } from "./operations.js";
import { bufferOf, eachPart, type Operation, rowsOf, watch } from "./pass.js";
import type { LatentMaps } from "./weights.js";

const copy = { f: "scale", by: 1 } as const;

/**
 * Latent attention with the maps behind the latent on the other side (DeepSeek-V2, arXiv 2405.04434, 2.1.2): a query takes the
 * map of its key, and what it takes of the latents that of its value. Only latents and shared keys are kept and read.
 */
export function latentAttention({ expand, attend, latent }: LatentSteps, { keys, values }: LatentMaps): Operation {
  const { heads, kv } = attend;
  const { rank, width } = latent;
  const plain = kv.k - width;
  const eachHead = (act: (head: number) => void) => {
    for (let head = 0; head < heads; head++) act(head);
  };
  return (pass) =>
    watch(pass, expand.site, expand.of, () => {
      const { backend, buffers } = pass;
      const [q, queries, sums, out] = [attend.q, latentQueries, latentSums, attend.into].map((name) =>
        bufferOf(pass, name),
      );
      const part = (of: Activation, every: number, head: number, first: number, count: number) =>
        of.columns(head * every + first, count);
      eachHead((head) => {
        backend.linear(part(queries, rank + width, head, 0, rank), part(q, kv.k, head, 0, plain), keys[head]);
        backend.map(part(queries, rank + width, head, rank, width), part(q, kv.k, head, plain, width), copy);
      });
      const kept = buffers.together([latent.latent, latent.key])!;
      const attended = eachPart(pass, (part) => {
        append(pass, part, rowsOf(kept, part), undefined);
        return attendTo(pass, part, attend, { q: rowsOf(queries, part), out: rowsOf(sums, part) });
      });
      const expandSums = () =>
        eachHead((head) =>
          backend.linear(part(out, kv.v, head, 0, kv.v), part(sums, rank, head, 0, rank), values[head]),
        );
      if (pass.keysOnly) return attended;
      return attended === undefined ? expandSums() : attended.then(expandSums);
    });
}
