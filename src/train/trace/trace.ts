import { numpy as np } from "@jax-js/jax";
import type { BlockSpec, EmbeddingSpec, ModelSpec } from "../../arch/index.js";
import { UsageError } from "../../core/index.js";
import { crossEntropy, maskedCrossEntropy, softcap } from "../engine/layers.js";
import { add, columns, multiply, reshape, type Traced, take } from "../engine/ops.js";
import type { TracedArrays, TracedModel } from "../engine/tracedObjective.js";
import { contextLeftName, contextWeightName } from "../models/contextNames.js";
import { type Distillation, teacherName } from "../models/distillation.js";
import { divergences, meanOverKnown } from "../models/divergence.js";
import { gateShareName } from "../models/gateNames.js";
import { featureName, projectionsOf, type Shown } from "../models/matchingOptions.js";
import { miniLlmLoss } from "../models/miniLlm.js";
import {
  drawnName,
  importanceName,
  judgementName,
  miniLlmDefaults,
  returnName,
  writtenName,
} from "../models/miniLlmOptions.js";
import { loadName } from "../models/routerNames.js";
import type { ParameterInfo } from "../values.js";
import type { AdaptedOptions } from "./adaptation.js";
import { factoredWeights } from "./factors.js";
import { fillingName } from "./filling.js";
import { gatePenalties, gateShare, traceGated } from "./gates.js";
import { featureOf, matchedTerms } from "./matched.js";
import type { TraceOptions } from "./options.js";
import { type BlockPass, TracedPass } from "./pass.js";
import { refuseUntraced, traceSteps } from "./steps.js";

/**
 * A described language model as a trainable function. Batches hold `tokens` int32 [sequences · window] and `label` of the same
 * shape: the token that follows each.
 * @param parameters of `modelParameters`
 * @param window tokens of a sequence
 * @throws UsageError that names what of the description cannot be trained
 */
export function traceModel(
  spec: ModelSpec,
  parameters: readonly ParameterInfo[],
  window: number,
  options: TraceOptions & AdaptedOptions = {},
): TracedModel {
  refuseUntraced(spec, options.classifies && { classifier: true });
  const { positions } = spec.embedding;
  if (positions !== undefined && window + positions.offset > positions.table.shape[0]) {
    throw new UsageError(
      `windows of ${window} tokens for a model of ${positions.table.shape[0] - positions.offset} learned positions`,
    );
  }
  const passOf = (weights: TracedArrays, batch: TracedArrays) => {
    const all = { ...weights, ...factoredWeights(parameters, weights) };
    return new TracedPass(all, batch, batch.tokens.shape[0] / window, window, options, batch[fillingName]);
  };
  const { matching, shown } = options;
  return {
    parameters: matching === undefined ? parameters : [...parameters, ...projectionsOf(matching)],
    predict: (weights, batch) => logitsOf(spec, passOf(weights, batch)),
    ...(shown && { show: (weights, batch) => showBlocks(spec, passOf(weights, batch), shown) }),
    loss(weights, batch) {
      const pass = passOf(weights, batch);
      const { blocks, logits } = runBlocks(spec, pass);
      const prediction = (options.masked ? maskedCrossEntropy : crossEntropy)(logits, batch.label);
      const wanted =
        options.distillation?.loss === "minillm"
          ? written(
              prediction,
              (tokens) => logitsOf(spec, passOf(weights, { ...batch, tokens })),
              batch,
              options.distillation,
              window,
            )
          : distilled(prediction, logits, batch, options);
      const left =
        pass.contexts.length === 0 ? undefined : multiply(pass.contexts.reduce(add), 1 / pass.contexts.length);
      const weight = batch[contextWeightName];
      const share = gateShare(pass.gates);
      return {
        loss: [
          ...pass.mixtures.flatMap(({ penalties }) => penalties),
          ...pass.penalties,
          ...(matching === undefined ? [] : matchedTerms(matching, spec, blocks, pass)),
          ...(left && weight ? [multiply(left, weight)] : []),
          ...gatePenalties(pass.gates, batch),
        ].reduce(add, wanted),
        measured: {
          prediction,
          ...(left && { [contextLeftName]: left }),
          ...(share && { [gateShareName]: share }),
          ...pass.measuredMembers,
          ...Object.fromEntries(pass.mixtures.map(({ load }, number) => [loadName(number), load])),
        },
      };
    },
  };
}

/** f32 [sequences · window, vocabSize] */
function logitsOf(spec: ModelSpec, pass: TracedPass): Traced {
  return runBlocks(spec, pass).logits;
}

/** The logits, and what the buffers of every block hold behind it. */
function runBlocks(spec: ModelSpec, pass: TracedPass): { blocks: BlockPass["buffers"][]; logits: Traced } {
  let x = embed(spec.embedding, pass);
  const blocks = spec.blocks.map((block, layer) => {
    const buffers = traceBuffers(block, layer, x, pass);
    x = buffers.get("x")!;
    return buffers;
  });
  return { blocks, logits: traceHead(spec, x, pass) };
}

/** What a model shows of itself to one that learns from it. */
function showBlocks(spec: ModelSpec, pass: TracedPass, shown: Shown): TracedArrays {
  const { blocks, logits } = runBlocks(spec, pass);
  const features = shown.blocks.flatMap((number) =>
    shown.kinds.map(
      (kind) => [featureName(kind, number), featureOf(kind, spec.blocks[number], blocks[number])] as const,
    ),
  );
  return { ...(shown.logits && { [teacherName]: logits }), ...Object.fromEntries(features) };
}

/** The residual stream behind a block. @param x before it, f32 [rows, hiddenSize] */
export const traceBlock = (block: BlockSpec, layer: number, x: Traced, pass: TracedPass): Traced =>
  traceBuffers(block, layer, x, pass).get("x")!;

function traceBuffers(block: BlockSpec, layer: number, x: Traced, pass: TracedPass): BlockPass["buffers"] {
  const buffers = new Map([["x", x]]);
  traceGated(block, { pass, layer, buffers });
  return buffers;
}

/** Logits of the residual stream behind the last block: of every token, or of every text where the model classifies. */
export function traceHead({ finalNorm, head }: ModelSpec, x: Traced, pass: TracedPass): Traced {
  if (head.kind === "none") throw new UsageError("a model without a head predicts nothing");
  const final = finalNorm === undefined ? x : pass.norm(x, finalNorm);
  if (head.kind === "classifier") {
    // A text is judged by what stands at its first token.
    const buffers = new Map([["x", firstOfEach(final, pass)]]);
    traceSteps(head.steps, { pass, layer: 0, buffers });
    return pass.whole(buffers.get(head.from)!, head.map);
  }
  const logits = pass.whole(final, head.map);
  return head.softcap !== undefined ? softcap(logits, head.softcap) : logits;
}

/** [sequences, width] of x [sequences · window, width]: the first row of every sequence. */
const firstOfEach = (x: Traced, { sequences, window }: TracedPass): Traced =>
  columns(reshape(x, [sequences, window * x.shape[1]]), 0, x.shape[1]);

// Flat throughout: the engine cannot compile the gradient of a gather whose result is only reshaped.
function embed({ table, scale, positions, types, norm }: EmbeddingSpec, pass: TracedPass): Traced {
  const found = take(pass.weight(table), pass.batch.tokens);
  let x = scale === undefined ? found : multiply(found, scale);
  const everyRow = (row: (position: number) => number) =>
    np.array(
      Int32Array.from({ length: pass.rows }, (_, r) => row(r % pass.window)),
      { shape: [pass.rows] },
    );
  if (positions !== undefined) {
    x = add(
      x,
      take(
        pass.weight(positions.table),
        everyRow((position) => position + positions.offset),
      ),
    );
  }
  // Text without types has type 0.
  if (types !== undefined)
    x = add(
      x,
      take(
        pass.weight(types),
        everyRow(() => 0),
      ),
    );
  return norm === undefined ? x : pass.norm(x, norm);
}

/** (1 − η)·loss of the text + η·divergence from the teacher where there is one, over the tokens that are learnt. */
function distilled(
  prediction: Traced,
  logits: Traced,
  batch: TracedArrays,
  { distillation, masked }: TraceOptions,
): Traced {
  const teacher = batch[teacherName];
  if (teacher === undefined || distillation === undefined) return prediction;
  const { share, temperature, loss = "kl" } = distillation;
  if (loss === "minillm") return prediction;
  const apart = meanOverKnown(divergences[loss](logits, teacher, temperature), masked && batch.label);
  return add(multiply(prediction, 1 - share), multiply(apart, share));
}

/** (1 − η)·loss of the text + η·MiniLLM's of what the student has written, where it has. */
function written(
  prediction: Traced,
  logitsAt: (tokens: Traced) => Traced,
  batch: TracedArrays,
  { share, miniLlm = miniLlmDefaults }: Distillation,
  window: number,
): Traced {
  const tokens = batch[writtenName];
  if (tokens === undefined) return prediction;
  const own = miniLlmLoss(
    logitsAt(tokens),
    {
      drawn: batch[drawnName],
      importance: batch[importanceName],
      returns: batch[returnName],
      teacher: batch[judgementName],
    },
    tokens.shape[0] / window,
    miniLlm.singleStep,
  );
  return add(multiply(prediction, 1 - share), multiply(own, share));
}
