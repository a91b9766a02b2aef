import type { BlockGates, GateSpec, ModelConfig } from "../../arch/index.js";
import { withLayerGates } from "../../arch/internal.js";
import { UsageError } from "../../core/index.js";
import { type Choosable, usage } from "../../runtime/index.js";
import { oneOf, type ParameterRules, type ParameterValues, parseChoice, share } from "../../runtime/internal.js";
import type { Batch, BatchControl } from "../objective.js";
import { randomFor } from "../seeds.js";
import type { FloatArray } from "../values.js";
import { gateCapacityName, gateShareName, gateTargetName, gateWeightName } from "./gateNames.js";
import { initialWeights, type ModelParameter } from "./parameters.js";

/** A way to train routers in front of layers. */
interface GateTraining<R extends ParameterRules = ParameterRules> extends Choosable {
  readonly parameters: R;
  /** What the trained model does at its gates. */
  readonly kind: GateSpec["kind"];
  /** What steers a step. @param along share of the training that lies behind it */
  arrays(values: ParameterValues<R>, along: number): Batch;
}

/** What all have: in front of what gates stand, and where they begin. */
const common = {
  units: oneOf("what a gate is about", ...(["block", "attention", "mlp", "sublayers"] as const)),
  bias: share("what gates of a new model begin with; above 0, so that all is let through", 1, 10),
} as const;

/** Checks types where a way is declared, and gives it what all have. */
const training = <const R extends ParameterRules>(one: GateTraining<R>): GateTraining =>
  ({ ...one, parameters: { ...one.parameters, ...common } }) as unknown as GateTraining;

const scalar = (value: number) => ({ shape: [], values: Float32Array.of(value) });

/** From 1 to `share`, along a line that ends at `until`. */
const falling = (share: number, until: number, along: number) =>
  1 - (1 - share) * (until === 0 ? 1 : Math.min(1, along / until));

const target = {
  share: share("of the weights behind gates, that a token is to meet on average", 0.7, 1),
  until: share("of the steps, in which the share falls from all to that", 0.5, 1),
} as const;

/** All ways to train routers in front of layers, by the name that a text chooses them with. */
export const gateTrainings: Readonly<Record<string, GateTraining>> = {
  soft: training({
    summary: "weighs what a layer adds by the logistic function; all is computed",
    kind: "soft",
    parameters: {},
    arrays: () => ({}),
  }),
  hard: training({
    summary:
      "lets a token through or past, with a straight-through gradient; the loss has weight · (share met − share)²",
    kind: "hard",
    parameters: { ...target, weight: share("of the distance from the share, squared, in the loss", 30, 999) },
    arrays: ({ share, until, weight }, along) => ({
      [gateTargetName]: scalar(falling(share, until, along)),
      [gateWeightName]: scalar(weight),
    }),
  }),
  topk: training({
    summary:
      "lets the most wanted tokens of each text through (mixture of depths), which needs the whole text; gates learn to tell them one by one, by a cross-entropy of this weight",
    kind: "hard",
    parameters: { ...target, weight: share("of the cross-entropy of the gates, in the loss", 0.1, 999) },
    arrays: ({ share, until, weight }, along) => ({
      [gateCapacityName]: scalar(falling(share, until, along)),
      [gateWeightName]: scalar(weight),
    }),
  }),
};

/** How each is written, for help: "hard:share=0.7,until=0.5,weight=30,units=block,bias=1". */
export const gateUsages = (): string[] => Object.entries(gateTrainings).map(([name, entry]) => usage(name, entry));

/** Routers in front of layers, with their parameters. */
export interface LayerGates {
  /** As it was written. */
  readonly text: string;
  readonly name: string;
  readonly values: Readonly<Record<string, number | string>>;
}

/**
 * Reads `hard:share=0.7,units=sublayers`.
 * @throws UsageError naming what is wrong and what there is
 */
export function parseLayerGates(text: string): LayerGates {
  const { name, values } = parseChoice("a way to gate layers", gateTrainings, text);
  return { text, name, values };
}

/**
 * The same model with routers in front of its layers.
 * @throws UsageError where it has others; FormatError where it can have none
 */
export function gatedConfig(config: ModelConfig, { name, values, text }: LayerGates): ModelConfig {
  const wanted = { units: values.units as BlockGates["units"], kind: gateTrainings[name].kind };
  const own = config.blocks.find(({ gates }) => gates !== undefined)?.gates;
  if (own === undefined) return withLayerGates(config, wanted);
  if (own.units === wanted.units && own.kind === wanted.kind) return config;
  throw new UsageError(
    `\`layerGates\` ${text}: the model has ${own.kind} gates in front of units=${own.units} already; go on with those`,
  );
}

/** Deviation of what a gate makes of a token at first: tokens then differ by about as much as the gates lie above 0. */
const deviation = 0.5;

/** What begins with random numbers, and what with the bias, of tensors that a checkpoint has not. */
export function initialGates(
  parameters: readonly ModelParameter[],
  { values }: LayerGates,
  seed: number,
): Map<string, FloatArray> {
  const random = randomFor(seed, "gates");
  const begun = parameters.map((parameter): [string, FloatArray] => {
    const { name, shape, start } = parameter;
    if (start === "zeros") return [name, new Float32Array(shape[0]).fill(values.bias as number)];
    return [...initialWeights([parameter], random, deviation / Math.sqrt(shape[1]))][0];
  });
  return new Map(begun);
}

/** Asks for fewer and fewer tokens, and says how many are let through. */
export function gateControl({ name, values }: LayerGates, steps: number): BatchControl {
  const state = { step: 0, share: 1 };
  return {
    state,
    arrays: () => gateTrainings[name].arrays(values as never, state.step / steps),
    // What is measured is what the runtime does.
    evaluationArrays: () => ({}),
    observe(measured) {
      state.step++;
      state.share = measured.get(gateShareName)![0];
    },
    metrics: () => ({ layerShare: state.share }),
  };
}
