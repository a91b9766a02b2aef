import { findStep } from "rarefy/arch";
import type { ForwardOptions, Model, PassThresholds } from "rarefy/model";
import { measureExperts } from "rarefy/pipeline";
import type { Inspection, InspectRequest } from "../protocol.js";
import type { CallContext } from "../rpc.js";
import { job } from "./job.js";
import type { Session } from "./session.js";
import { rolesOf, tapInputs } from "./watch.js";

/** What a picture has room for. */
const mostTokens = 256;

/** Runs a text as one pass and looks at what attention, thresholds and routers do. */
export async function inspect(
  { text, skipping }: InspectRequest,
  session: Session,
  context: CallContext,
): Promise<Inspection> {
  const { opened, tokenizer } = session;
  const { model } = opened;
  const ids = Uint32Array.from(tokenizer.encode(text));
  if (ids.length < 2 || ids.length > mostTokens)
    throw new Error(`the text has ${ids.length} tokens; give one of 2 to ${mostTokens}`);
  const thresholds = await session.thresholds(skipping, context);
  const maps = rolesOf(model);
  // Maps of experts are called once for every expert.
  const counts = model.config.spec.blocks.map(() => maps.map(() => ({ zeros: 0, inputs: 0 })));
  const tap = tapInputs(model, thresholds, (layer, role, inputs, threshold) => {
    const count = counts[layer][maps.indexOf(role)];
    count.zeros += inputs.reduce((zeros, x) => zeros + (Math.abs(x) <= threshold ? 1 : 0), 0);
    count.inputs += inputs.length;
  });
  const attention = await attentionOf(model, ids, { thresholds, tap });
  const skipped = counts.map((layer) => layer.map(({ zeros, inputs }) => (inputs === 0 ? undefined : zeros / inputs)));
  context.signal.throwIfAborted();
  const experts = await expertsOf(model, ids, context);
  return { tokens: Array.from(ids, (id) => tokenizer.decode([id])), attention, maps, skipped, experts };
}

async function attentionOf(
  model: Model,
  ids: Uint32Array,
  options: { thresholds: PassThresholds; tap: ForwardOptions["tap"] },
): Promise<Inspection["attention"]> {
  const { backend } = model;
  using cache = model.createCache(ids.length, { mass: "sum" });
  await model.forward(ids, cache, 0, { ...options, logits: "none" });
  const masses = await backend.readMass(cache);
  const { layers, slots } = cache.spec;
  return masses.map((mass, layer) => {
    const { heads } = layers[layer];
    const shares = new Float32Array(heads * ids.length);
    for (let head = 0; head < heads; head++) {
      const given = mass.subarray(head * slots, head * slots + ids.length);
      const total = given.reduce((sum, share) => sum + share, 0);
      for (const [at, share] of given.entries()) shares[head * ids.length + at] = total > 0 ? share / total : 0;
    }
    return { heads, shares };
  });
}

async function expertsOf(model: Model, ids: Uint32Array, context: CallContext): Promise<Inspection["experts"]> {
  if (!model.config.spec.blocks.some((block) => findStep(block, "mixture"))) return [];
  const measured = await measureExperts(model, ids, { window: ids.length, ...job(context) });
  return measured.flatMap((statistics, layer) => {
    if (statistics === undefined) return [];
    const { counts } = statistics;
    const places = counts.reduce((sum, count) => sum + count, 0);
    return [{ layer, loads: Array.from(counts, (count) => (places === 0 ? 0 : count / places)) }];
  });
}
