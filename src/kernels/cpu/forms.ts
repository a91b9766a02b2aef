import type { ActivationFunction } from "../../core/index.js";
import {
  functionGelu,
  functionGeluTanh,
  functionRelu,
  functionRelu2,
  functionSilu,
  productScratchBytes,
} from "../program/layout.js";
import * as codes from "./codes.js";

/** How a kernel for a GPU is done on a CPU: by a step of wasm/assembly/training, which has the kernel's parameters and buffers. */
export interface Form {
  code: number;
  /** Which of the kernels that share a step. Default 0. */
  variant?: number;
  /** What each thread needs beside the buffers. Default 0. */
  scratchBytes?: number;
}

const functions: Readonly<Record<ActivationFunction, number>> = {
  silu: functionSilu,
  relu: functionRelu,
  relu2: functionRelu2,
  gelu: functionGelu,
  geluTanh: functionGeluTanh,
};
/** Of a variant of an activation. */
const gated = 256;
/** Of a variant of a product. */
const byRuns = 4;

function* activations(): Iterable<[string, Form]> {
  for (const [name, id] of Object.entries(functions)) {
    for (const [title, variant] of [
      [`train ${name}`, id],
      [`train gated ${name}`, id + gated],
    ] as const) {
      yield [title, { code: codes.stepActivation, variant }];
      yield [`${title} backward`, { code: codes.stepActivationBackward, variant }];
    }
  }
}

function* norms(): Iterable<[string, Form]> {
  for (const [variant, name] of ["rmsNorm", "layerNorm"].entries()) {
    yield [`train ${name}`, { code: codes.stepNorm, variant }];
    yield [`train ${name} backward`, { code: codes.stepNormBackward, variant }];
    yield [`train ${name} weights`, { code: codes.stepNormWeights, variant }];
  }
}

/** Tiles of a GPU are of several widths; here they are all one. */
function* products(): Iterable<[string, Form]> {
  for (const [layout, name] of ["nt", "nn", "tn"].entries()) {
    for (const columns of [32, 64]) {
      const form = { code: codes.stepProduct, scratchBytes: productScratchBytes };
      yield [`gemm ${name} ${columns}`, { ...form, variant: layout }];
      yield [`gemm by runs ${name} ${columns}`, { ...form, variant: layout + byRuns }];
    }
  }
}

/** By the name of the kernel. */
export const forms: ReadonlyMap<string, Form> = new Map<string, Form>([
  ...products(),
  ...activations(),
  ...norms(),
  ["train look up", { code: codes.stepLookUp }],
  ["train add rows", { code: codes.stepAddRows }],
  ["train rotate", { code: codes.stepRotate }],
  ["train sum", { code: codes.stepSumOf }],
  ["train add to", { code: codes.stepAddTo }],
  ["train add repeated", { code: codes.stepAddRepeated }],
  ["train relu in place", { code: codes.stepRelu }],
  ["train relu in place backward", { code: codes.stepReluBackward }],
  ["train sum parts", { code: codes.stepSumParts }],
  ["train column sums", { code: codes.stepColumnSums }],
  ["train causal softmax", { code: codes.stepCausalSoftmax }],
  ["train whole softmax", { code: codes.stepWholeSoftmax }],
  ["train padded softmax", { code: codes.stepPaddedSoftmax }],
  ["train causal softmax backward", { code: codes.stepCausalSoftmaxBackward }],
  ["train softmax backward", { code: codes.stepSoftmaxBackward }],
  ["train cross entropy", { code: codes.stepCrossEntropy }],
  ["train cross entropy and kl", { code: codes.stepDivergence, variant: 0 }],
  ["train cross entropy and reverse-kl", { code: codes.stepDivergence, variant: 1 }],
  ["train cross entropy and logits", { code: codes.stepDivergence, variant: 2 }],
  ["train squares of states", { code: codes.stepStateSquares }],
  ["train difference of states", { code: codes.stepStateDifference }],
  ["train gradient of states", { code: codes.stepStateGradient }],
  ["train route", { code: codes.stepRoute }],
  ["train route backward", { code: codes.stepRouteBackward }],
  ["train place", { code: codes.stepPlace }],
  ["train to slots", { code: codes.stepToSlots }],
  ["train to slots gated", { code: codes.stepToSlotsGated }],
  ["train from slots", { code: codes.stepFromSlots }],
  ["train from slots gated", { code: codes.stepFromSlotsGated }],
  ["train gate gradient", { code: codes.stepGateGradient }],
  ["train choose masks", { code: codes.stepChooseMasks }],
  ["train mask weights", { code: codes.stepMaskWeights }],
  ["train scale weights", { code: codes.stepScaleWeights }],
  ["train scale gradients", { code: codes.stepScaleGradients }],
  ["train prepare gradients", { code: codes.stepPrepareGradients }],
  ["train clip factor", { code: codes.stepClipFactor }],
  ["train adam step", { code: codes.stepAdamStep }],
  ["train count digits", { code: codes.stepCountDigits, scratchBytes: 8192 }],
  ["train pick digit", { code: codes.stepPickDigit }],
  ["train cut below", { code: codes.stepCutBelow }],
]);
