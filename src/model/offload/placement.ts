import {
  type ActivateStep,
  activationOf,
  type BlockSpec,
  distinctBlocks,
  findStep,
  type LinearSpec,
  type LinearStep,
  type ModelSpec,
} from "../../arch/index.js";
import { UsageError } from "../../core/index.js";
import { packedRowsOf } from "../../kernels/index.js";
import { padded, rowBytes, type WeightFormatId, weightFormats } from "../../pack/index.js";

/**
 * What is one read of an offloaded model. "neurons": the row of `up`, the column of `down` and the row of `gate` of one neuron, for
 * models whose hidden values are mostly 0. "inputs": the columns of one input in `gate` and `up`, or in `down`, for models that drop
 * inputs by thresholds (TEAL). "experts": an expert of a mixture, for models that have some.
 */
export type OffloadLayout = "neurons" | "inputs" | "experts";

/** Every layout. */
export const offloadLayouts: readonly OffloadLayout[] = ["neurons", "inputs", "experts"];

/** What decides where everything lies in the file of bundles, beside the model. */
export interface OffloadShape {
  readonly weights: WeightFormatId;
  readonly layout: OffloadLayout;
  /** Whether the parts of a neuron lie together; else each in a run of its own, for comparison. */
  readonly bundled: boolean;
}

/** The MLP of a block: first = gate and up, one stack; f(gate) ⊙ up; down. Without a gate, `gate` stands for the only map. */
export interface OffloadedMlp {
  readonly layer: number;
  readonly first: LinearStep;
  readonly gate: LinearSpec;
  readonly up: LinearSpec | undefined;
  readonly activate: ActivateStep;
  readonly down: LinearStep;
}

/** Bytes of a unit that lie together, `bytes` of them every `stride` from `at` on. */
export interface UnitPart {
  readonly name: "up" | "down" | "gate" | "columns";
  readonly at: number;
  readonly stride: number;
  readonly bytes: number;
}

/** Units of one kind of a layer: neurons, or inputs of a step. */
export interface OffloadStream {
  readonly mlp: OffloadedMlp;
  /** The step that reads them: of neurons both do. */
  readonly of: "neurons" | "first" | "down";
  readonly units: number;
  /** In the order in which they lie in memory. */
  readonly parts: readonly UnitPart[];
  /** Scales of the groups of q8 and q4, which stay in memory. */
  readonly scales: { readonly at: number; readonly bytes: number };
  /** u32 [units]: how often each was used on a calibration text; all 0 without one. */
  readonly counts: number;
}

/** The dense MLP of a block, where it has one of the usual shape. */
export function offloadedMlp(block: BlockSpec, layer: number): OffloadedMlp | undefined {
  const activate = activationOf(block)?.step;
  if (activate === undefined || !block.steps.includes(activate)) return undefined;
  const linear = block.steps.filter((step): step is LinearStep => step.do === "linear");
  const first = linear.find(({ maps }) => maps.some(({ into }) => into === activate.of));
  const down = linear.find((step) => step.of === activate.into);
  if (first === undefined || down === undefined || down.maps.length !== 1) return undefined;
  const wanted = activate.times === undefined ? 1 : 2;
  const gate = first.maps.find(({ into }) => into === activate.of)?.map;
  const up = first.maps.find(({ into }) => into === activate.times)?.map;
  if (gate === undefined || first.maps.length !== wanted || (wanted === 2 && up === undefined)) return undefined;
  return { layer, first, gate, up, activate, down };
}

const isZeroing = ({ f, clamped }: ActivateStep): boolean => (f === "relu" || f === "relu2") && clamped === undefined;

/** The layout that suits a model: by experts where it has some, by neurons where its hidden values are exactly 0, else by inputs. */
export function layoutFor(spec: ModelSpec): OffloadLayout {
  if (spec.blocks.some((block) => findStep(block, "mixture") !== undefined)) return "experts";
  const mlps = spec.blocks.flatMap((block, layer) => offloadedMlp(block, layer) ?? []);
  const zeroing = mlps.length > 0 && mlps.every(({ activate, gate }) => isZeroing(activate) && gate.bias === undefined);
  return zeroing ? "neurons" : "inputs";
}

/** Regions of the file begin at these. */
export const alignment = 4096;

/**
 * Where everything lies, from the first byte to the last.
 * @throws UsageError for a model that cannot be offloaded so
 */
export function placeOffload(spec: ModelSpec, shape: OffloadShape): { streams: OffloadStream[]; byteLength: number } {
  if (distinctBlocks(spec).length < spec.blocks.length)
    throw new UsageError("layers that share their weights are held once already: they cannot be offloaded");
  const mlps = spec.blocks.flatMap((block, layer) => offloadedMlp(block, layer) ?? []);
  if (mlps.length === 0)
    throw new UsageError(`a ${spec.modelType} model has no dense MLP of the usual shape to offload`);
  if (shape.layout === "neurons") checkNeurons(mlps);
  let end = 0;
  const take = (bytes: number): number => {
    const at = Math.ceil(end / alignment) * alignment;
    end = at + bytes;
    return at;
  };
  const format = weightFormats[shape.weights];
  const columnsOf = (maps: readonly LinearSpec[]) => format.columnBytes(packedRowsOf(maps));
  const scalesOf = (maps: readonly LinearSpec[]) => {
    const bytes = (padded(maps[0].cols) / 32) * format.groupScaleBytes(packedRowsOf(maps));
    return { at: take(bytes), bytes };
  };
  const streams = mlps.flatMap((mlp): OffloadStream[] => {
    const down = mlp.down.maps[0].map;
    if (shape.layout === "inputs") {
      const stream = (of: "first" | "down", maps: readonly LinearSpec[]): OffloadStream => {
        const [units, bytes] = [maps[0].cols, columnsOf(maps)];
        const parts = [{ name: "columns" as const, at: take(units * bytes), stride: bytes, bytes }];
        return { mlp, of, units, parts, scales: scalesOf(maps), counts: take(4 * units) };
      };
      return [
        stream(
          "first",
          mlp.first.maps.map(({ map }) => map),
        ),
        stream("down", [down]),
      ];
    }
    const units = down.cols;
    const bytes = rowBytes(shape.weights, mlp.gate.cols);
    const sizes = [
      ...(mlp.up ? [{ name: "up" as const, bytes }] : []),
      { name: "down" as const, bytes: columnsOf([down]) },
      { name: "gate" as const, bytes },
    ];
    const bundle = sizes.reduce((sum, { bytes }) => sum + bytes, 0);
    const start = shape.bundled ? take(units * bundle) : 0;
    let within = 0;
    const parts = sizes.map(({ name, bytes }): UnitPart => {
      const at = shape.bundled ? start + within : take(units * bytes);
      within += bytes;
      return { name, at, stride: shape.bundled ? bundle : bytes, bytes };
    });
    return [{ mlp, of: "neurons", units, parts, scales: scalesOf([down]), counts: take(4 * units) }];
  });
  return { streams, byteLength: end };
}

function checkNeurons(mlps: readonly OffloadedMlp[]): void {
  for (const { layer, activate, gate, up } of mlps) {
    if (!isZeroing(activate)) {
      throw new UsageError(
        `layer ${layer} has ${activate.f} hidden values, which are hardly ever 0; take the layout "inputs", with a model that has thresholds`,
      );
    }
    const biased = [gate, up].find((map) => map?.bias !== undefined);
    if (biased !== undefined)
      throw new UsageError(`layer ${layer}: ${biased.role} has a bias; take the layout "inputs"`);
  }
}
