import type { EmbeddingSpec, ModelSpec } from "../../../arch/index.js";
import { Embedding } from "./embedding.js";
import type { Place } from "./layout.js";
import { NoKernel } from "./noKernel.js";
import type { Pass } from "./pass.js";
import type { Recording } from "./recording.js";
import { isWhole, type View } from "./rooms.js";
import { columnSums } from "./rowKernels.js";
import { recordNorm } from "./steps/norm.js";

/** What begins a model and what ends it. A vocabulary's rows, and those of a classifier, are filled up with zeros to four. */
const rowUnit = 4;

/** Positions that are added to what is looked up: learned, or the numbers of a table of the recording. */
export type Positions = { learned: Place; offset: number } | { table: number };

/** @returns where the residual stream of the first block lies */
export function recordEmbedding(
  { table: ref, scale = 1, positions: learned, types, norm }: EmbeddingSpec,
  recording: Recording,
  fixed?: Positions,
): View {
  if (types !== undefined) throw new NoKernel("types of tokens");
  if (learned !== undefined && recording.window + learned.offset > learned.table.shape[0]) {
    throw new NoKernel("windows longer than the learned positions");
  }
  const table = recording.placeRows(ref, rowUnit);
  const positions = learned === undefined ? fixed : { learned: recording.place(learned.table), offset: learned.offset };
  const width = table.cols;
  const x = recording.keep("embedded", width);
  const embedding = (pass: Pass) => new Embedding(pass.operations, table, pass.tokens, scale);
  recording.operations.push({
    forward(pass) {
      const rows = pass.memory(x.room);
      embedding(pass).forward(rows);
      const length = pass.window * width;
      if (positions === undefined) return;
      if ("table" in positions) pass.wholes.addRepeated(rows, pass.tables[positions.table], 0, length);
      else {
        const { learned, offset } = positions;
        pass.wholes.addRepeated(rows, pass.model.weights, learned.offset + offset * width, length);
      }
    },
    back(gradients) {
      const outer = gradients.of(x);
      const scratch = gradients.take(width);
      return (pass) => {
        const rows = pass.memory(outer.room);
        if (positions !== undefined && "learned" in positions) {
          const { learned, offset } = positions;
          pass.operations.clearGradient(learned);
          const sum = { width: pass.window * width, offset: learned.offset + offset * width };
          pass.wholes.sumRows(columnSums, { outer: rows }, sum, {});
        }
        // A table that is the head has a gradient already.
        if (recording.head !== table) pass.operations.clearGradient(table);
        embedding(pass).backward(rows, pass.places, pass.memory(scratch));
      };
    },
  });
  return norm === undefined ? x : recordNorm(norm, x, recording);
}

/** @returns where the logits of every token lie */
export function recordHead({ finalNorm, head }: ModelSpec, x: View, recording: Recording): View {
  if (head.kind !== "vocabulary" || head.softcap !== undefined || head.map.bias !== undefined) {
    throw new NoKernel("heads but a linear map onto a vocabulary");
  }
  const seen = finalNorm === undefined ? x : recordNorm(finalNorm, x, recording);
  const weight = recording.placeRows(head.map.weight, rowUnit);
  recording.head = weight;
  const logits = recording.keep("logits", weight.rows);
  recording.operations.push({
    forward: (pass) => pass.operations.linear(pass.rows(seen), weight, pass.rows(logits)),
    back(gradients) {
      const { at, accumulate } = gradients.into(seen);
      return (pass) => {
        const [outer, gradient] = [pass.rows(logits), pass.rows(at)];
        pass.operations.weightGradient(outer, weight, pass.rows(seen));
        pass.operations.throughWeight(outer, weight, gradient, accumulate ? gradient.memory : undefined);
      };
    },
  });
  return logits;
}

/** One linear map of all the rows of a sequence side by side. @returns where the logits of every sequence lie */
export function recordClassifier(names: { weight: string; bias: string }, x: View, recording: Recording): View {
  if (!isWhole(x)) throw new NoKernel("a part of the residual stream");
  const weight = recording.layout.place([names.weight], rowUnit);
  const bias = recording.layout.place([names.bias], rowUnit);
  const logits = recording.keep("logits", weight.rows, "sequences");
  const sequencesOf = (pass: Pass, { room }: View) => ({ memory: pass.memory(room), stride: weight.cols });
  recording.operations.push({
    forward(pass) {
      pass.wholes.longLinear(sequencesOf(pass, x), weight, pass.memory(logits.room));
      pass.wholes.addBias(pass.memory(logits.room), bias);
    },
    back(gradients) {
      const gradient = gradients.first(x);
      return (pass) => {
        const outer = pass.rows(logits);
        pass.wholes.biasGradient(outer.memory, bias);
        pass.wholes.weightGradient(outer, weight, sequencesOf(pass, x));
        pass.wholes.throughWeight(outer, weight, sequencesOf(pass, gradient));
      };
    },
  });
  return logits;
}
