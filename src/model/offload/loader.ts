import type { LinearStep, ModelSpec, Step } from "../../arch/index.js";
import type { Backend, Matrix, Region, Vector } from "../../kernels/index.js";
import { weightFormats } from "../../pack/index.js";
import { denseSource } from "../denseSource.js";
import type { LoadModelOptions } from "../loadOptions.js";
import { MatrixLoader } from "../matrixLoader.js";
import type { TensorSource } from "../tensorRows.js";
import { holdsAllNeurons } from "./holdsAll.js";
import { type LoadedPredictor, Offload } from "./offload.js";
import type { OffloadedStep } from "./operations.js";
import { type OffloadStream, placeOffload } from "./placement.js";

/** Loads what stays in memory of a model whose MLPs are read as they are needed. */
export class OffloadLoader {
  readonly #streams: readonly OffloadStream[];
  readonly #steps: ReadonlyMap<Step, OffloadStream>;
  readonly #gates = new Map<number, Matrix>();
  /** Whether `down` of all layers is loaded, because everything is. */
  readonly #holdsDown: boolean;
  readonly #predictors: LoadedPredictor[] = [];
  /** What the largest step takes when it is loaded for a prompt. */
  #promptBytes = 0;
  #offload: Offload | undefined;

  constructor(
    readonly source: TensorSource,
    readonly backend: Backend,
    readonly region: Region,
    readonly options: LoadModelOptions & Required<Pick<LoadModelOptions, "offload">>,
    spec: ModelSpec,
  ) {
    this.#holdsDown = holdsAllNeurons(source, spec, options);
    this.#streams = placeOffload(spec, options.offload.file.shape).streams;
    this.#steps = new Map(
      this.#streams.flatMap((stream): [Step, OffloadStream][] =>
        (["first", "down"] as const)
          .filter((of) => stream.of === "neurons" || stream.of === of)
          .map((of) => [stream.mlp[of], stream]),
      ),
    );
  }

  /** Whether a step is not loaded. */
  has(step: Step): boolean {
    return this.#steps.has(step);
  }

  /**
   * What stays of a step.
   * @param load loads a matrix that always stays, and counts it; @param bias of all its maps
   */
  async step(
    step: LinearStep,
    load: (parts: Parameters<MatrixLoader["load"]>[0]) => Promise<Matrix>,
    bias: Vector | undefined,
  ): Promise<{ offloaded: OffloadedStep; byteLength: number }> {
    const { of, mlp } = this.#steps.get(step)!;
    const { gate, layer } = mlp;
    const { offload, weights } = this.options;
    const isFirst = step === mlp.first;
    const keepsGate = of === "neurons" && isFirst && offload.predictors === undefined;
    const byteLength = offload.predictors !== undefined && isFirst ? await this.#loadPredictor(layer) : 0;
    const map = keepsGate ? gate : !isFirst && this.#holdsDown ? mlp.down.maps[0].map : undefined;
    const kept = map && { map, matrix: await load([{ ref: map.weight, rows: map.rows }]) };
    if (keepsGate) this.#gates.set(layer, kept!.matrix);
    const read = step.maps.map(({ map }) => map).filter((map) => map !== kept?.map);
    if (read.length > 0) {
      const whole = read.reduce((sum, { rows, cols }) => sum + weightFormats[weights].byteLength(rows, cols), 0);
      this.#promptBytes = Math.max(this.#promptBytes, this.backend.loadingBytes?.(read, weights) ?? whole);
    }
    const offloaded: OffloadedStep = {
      offload: () => this.#offload!,
      bias,
      kept,
      loadStack: (maps) => this.#loadStack(maps.map(({ weight, rows }) => ({ ref: weight, rows }))),
    };
    return { offloaded, byteLength };
  }

  /** Once everything else is loaded. @param fixedBytes what that takes */
  async open(fixedBytes: number): Promise<Offload> {
    const { file, options, predictors } = this.options.offload;
    const bytes = { fixedBytes: Math.ceil(fixedBytes), promptBytes: this.#promptBytes };
    const stay = { gates: this.#gates, down: this.#holdsDown };
    const loaded = predictors && this.#predictors;
    this.#offload = await Offload.open(this.backend, file, this.#streams, stay, bytes, options, loaded);
    try {
      await this.#offload.holdAll(this.options.signal);
    } catch (error) {
      this.#offload[Symbol.dispose]();
      throw error;
    }
    return this.#offload;
  }

  async #loadStack(parts: Parameters<MatrixLoader["load"]>[0]): ReturnType<OffloadedStep["loadStack"]> {
    const region = this.backend.openRegion({ weightBytes: 0 });
    try {
      let readBytes = 0;
      const events = {
        onRead(_: unknown, byteLength: number) {
          readBytes += byteLength;
        },
        onSuspect() {},
      };
      // Work that began when the model was loaded is done, and so is its signal.
      const options = { ...this.options, structure: "dense" as const, signal: undefined };
      const matrix = await new MatrixLoader(this.source, this.backend, region, options, events).load(parts);
      return { region, stack: { matrix }, readBytes };
    } catch (error) {
      region[Symbol.dispose]();
      throw error;
    }
  }

  /** @returns its bytes */
  async #loadPredictor(layer: number): Promise<number> {
    const { description, layers } = this.options.offload.predictors!;
    const { rank, inputs, neurons, ...values } = layers[layer];
    const load = (part: "down" | "up", rows: number, cols: number) =>
      this.region.loadMatrix([denseSource(`predictor ${layer} ${part}`, rows, cols, values[part])], "f32");
    const [down, up] = [await load("down", rank, inputs), await load("up", neurons, rank)];
    const ahead = description.from === "before" && layer > 0;
    this.#predictors[layer] = { down, up, bias: this.region.loadVector(values.bias), ahead };
    return down.byteLength + up.byteLength + values.bias.byteLength;
  }
}
