import { programStart } from "../../../program/layout";
import {
  stepEnd, stepProduct, stepLookUp, stepAddRows, stepRotate, stepSumOf, stepAddTo, stepAddRepeated, stepRelu, stepReluBackward, stepSumParts, stepActivation, stepActivationBackward, stepColumnSums, stepCausalSoftmax, stepWholeSoftmax, stepPaddedSoftmax, stepCausalSoftmaxBackward, stepSoftmaxBackward, stepCrossEntropy, stepNorm, stepNormBackward, stepNormWeights, stepRoute, stepRouteBackward, stepPlace, stepToSlots, stepToSlotsGated, stepFromSlots, stepFromSlotsGated, stepGateGradient, stepChooseMasks, stepMaskWeights, stepScaleWeights, stepScaleGradients, stepPrepareGradients, stepClipFactor, stepAdamStep, stepCountDigits, stepPickDigit, stepCutBelow, stepDivergence, stepStateSquares, stepStateDifference, stepStateGradient,
} from "../../../cpu/codes";
import { barrier } from "../sync";
import { activation, activationBackward, Activation, ActivationBackward } from "./activations";
import { lookUp, addRows, rotate, sumOf, addTo, addRepeated, relu, reluBackward, sumParts, LookUp, AddRows, Rotate, SumOf, AddTo, AddRepeated, Relu, ReluBackward, SumParts } from "./elements";
import { route, routeBackward, place, toSlots, toSlotsGated, fromSlots, fromSlotsGated, gateGradient, Route, RouteBackward, Place, ToSlots, ToSlotsGated, FromSlots, FromSlotsGated, GateGradient } from "./mixtures";
import { crossEntropy, CrossEntropy, divergence, Divergence } from "./losses";
import { stateDifference, StateDifference, stateGradient, StateGradient, stateSquares, StateSquares } from "./matching";
import { norm, normBackward, normWeights, Norm, NormBackward, NormWeights } from "./norms";
import { product, Product } from "./product";
import { countDigits, pickDigit, cutBelow, CountDigits, PickDigit, CutBelow } from "./projection";
import { columnSums, causalSoftmax, wholeSoftmax, paddedSoftmax, causalSoftmaxBackward, softmaxBackward, ColumnSums, CausalSoftmax, WholeSoftmax, PaddedSoftmax, CausalSoftmaxBackward, SoftmaxBackward } from "./rows";
import { chooseMasks, maskWeights, scaleWeights, scaleGradients, prepareGradients, clipFactor, adamStep, ChooseMasks, MaskWeights, ScaleWeights, ScaleGradients, PrepareGradients, ClipFactor, AdamStep } from "./updates";

export { configure, park, spin, wake } from "../sync";

/** Does thread `thread`'s part of a step. */
function doStep(code: i32, at: usize, thread: i32): void {
  switch (code) {
    case stepProduct: return product(changetype<Product>(at), thread);
    case stepLookUp: return lookUp(changetype<LookUp>(at));
    case stepAddRows: return addRows(changetype<AddRows>(at));
    case stepRotate: return rotate(changetype<Rotate>(at));
    case stepSumOf: return sumOf(changetype<SumOf>(at));
    case stepAddTo: return addTo(changetype<AddTo>(at));
    case stepAddRepeated: return addRepeated(changetype<AddRepeated>(at));
    case stepRelu: return relu(changetype<Relu>(at));
    case stepReluBackward: return reluBackward(changetype<ReluBackward>(at));
    case stepSumParts: return sumParts(changetype<SumParts>(at));
    case stepActivation: return activation(changetype<Activation>(at));
    case stepActivationBackward: return activationBackward(changetype<ActivationBackward>(at));
    case stepColumnSums: return columnSums(changetype<ColumnSums>(at));
    case stepCausalSoftmax: return causalSoftmax(changetype<CausalSoftmax>(at));
    case stepWholeSoftmax: return wholeSoftmax(changetype<WholeSoftmax>(at));
    case stepPaddedSoftmax: return paddedSoftmax(changetype<PaddedSoftmax>(at));
    case stepCausalSoftmaxBackward: return causalSoftmaxBackward(changetype<CausalSoftmaxBackward>(at));
    case stepSoftmaxBackward: return softmaxBackward(changetype<SoftmaxBackward>(at));
    case stepCrossEntropy: return crossEntropy(changetype<CrossEntropy>(at));
    case stepNorm: return norm(changetype<Norm>(at));
    case stepNormBackward: return normBackward(changetype<NormBackward>(at));
    case stepNormWeights: return normWeights(changetype<NormWeights>(at));
    case stepRoute: return route(changetype<Route>(at));
    case stepRouteBackward: return routeBackward(changetype<RouteBackward>(at));
    case stepPlace: return place(changetype<Place>(at), thread);
    case stepToSlots: return toSlots(changetype<ToSlots>(at));
    case stepToSlotsGated: return toSlotsGated(changetype<ToSlotsGated>(at));
    case stepFromSlots: return fromSlots(changetype<FromSlots>(at));
    case stepFromSlotsGated: return fromSlotsGated(changetype<FromSlotsGated>(at));
    case stepGateGradient: return gateGradient(changetype<GateGradient>(at));
    case stepChooseMasks: return chooseMasks(changetype<ChooseMasks>(at));
    case stepMaskWeights: return maskWeights(changetype<MaskWeights>(at));
    case stepScaleWeights: return scaleWeights(changetype<ScaleWeights>(at));
    case stepScaleGradients: return scaleGradients(changetype<ScaleGradients>(at));
    case stepPrepareGradients: return prepareGradients(changetype<PrepareGradients>(at));
    case stepClipFactor: return clipFactor(changetype<ClipFactor>(at), thread);
    case stepAdamStep: return adamStep(changetype<AdamStep>(at));
    case stepCountDigits: return countDigits(changetype<CountDigits>(at), thread);
    case stepPickDigit: return pickDigit(changetype<PickDigit>(at));
    case stepCutBelow: return cutBelow(changetype<CutBelow>(at));
    case stepDivergence: return divergence(changetype<Divergence>(at));
    case stepStateSquares: return stateSquares(changetype<StateSquares>(at));
    case stepStateDifference: return stateDifference(changetype<StateDifference>(at), thread);
    case stepStateGradient: return stateGradient(changetype<StateGradient>(at));
  }
}

/** Runs the program at `programStart`, steps as `cpu/recorder.ts` writes them: every thread does its part of each, and all meet after it. */
export function run(thread: i32): void {
  let at: usize = programStart;
  let code = load<i32>(at);
  while (code != stepEnd) {
    doStep(code, at + 8, thread);
    at += 8 + (<usize>load<u32>(at, 4) << 2);
    // Read before the barrier: once the last one is passed, the host may record the next program.
    code = load<i32>(at);
    barrier();
  }
}
