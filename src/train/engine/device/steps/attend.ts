import type { AttendStep, Buffer } from "../../../../arch/index.js";
import { Attention, type Heads, type QueriesKeysValues, type Sight } from "../attention.js";
import { NoKernel } from "../noKernel.js";
import type { Pass } from "../pass.js";
import type { Recording } from "../recording.js";
import { isWhole, type View } from "../rooms.js";

/** @param addedTo the buffer to which a step behind this one only adds what this one gives: the last product does that */
export function attend(step: AttendStep, recording: Recording, addedTo?: Buffer): void {
  const { q, k, v, into, heads, kv, scale, sight, softcap, sinks, pruning } = step;
  if (softcap !== undefined) throw new NoKernel("attention with a cap");
  if (pruning !== undefined) throw new NoKernel("attention that prunes its context");
  if (sinks !== undefined) throw new NoKernel("attention with sinks");
  if (kv.k % 4 !== 0 || kv.v % 4 !== 0) throw new NoKernel("heads whose widths are no multiple of four");
  const { window } = recording;
  const { filledUp } = recording.options;
  const values = [q, k, v].map((buffer) => recording.read(buffer));
  const base = addedTo === undefined ? undefined : recording.read(addedTo);
  const result = recording.keep(into, heads * kv.v);
  if (base !== undefined && !(isWhole(base) && base.width === result.width)) throw new NoKernel("a sum with a part");
  recording.write(addedTo ?? into, result);
  // Of one block at a time: what they were is computed again on the way back.
  const scores = recording.share("scores", heads * window);
  const scoresGradient = recording.share("gradient of scores", heads * window);
  const shape: Heads = { heads, keyHeads: kv.heads, key: kv.k, value: kv.v, scale };
  const seen = sight.kind === "window" ? Math.min(sight.window, window) : window;
  const attention = (pass: Pass) =>
    new Attention(pass.operations, pass, shape, pass.memory(scores), pass.memory(scoresGradient));
  const sightOf = ({ tokens }: Pass): Sight =>
    sight.kind === "all" ? { filling: filledUp ? tokens.tokens : undefined } : { window: seen };
  const rowsOf = (views: readonly View[], { rows }: Pass) => views.map(rows) as unknown as QueriesKeysValues;
  recording.operations.push({
    forward(pass) {
      const added = base && pass.memory(base.room);
      attention(pass).forward(sightOf(pass), rowsOf(values, pass), pass.rows(result), added);
    },
    back(gradients) {
      const outer = gradients.of(result);
      if (base !== undefined) gradients.passOn(result, base);
      const own = values.map((value) => gradients.first(value));
      if (base === undefined) gradients.release(result);
      return (pass) => attention(pass).back(sightOf(pass), rowsOf(values, pass), pass.rows(outer), rowsOf(own, pass));
    },
  });
}
