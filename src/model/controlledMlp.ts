import { UsageError } from "../core/index.js";
import type { Activation, Backend, Matrix, Region, Vector, WeightArea } from "../kernels/index.js";
import { fromFloat32 } from "../tensor/index.js";
import { denseSource } from "./denseSource.js";

/** An MLP of which a controller chooses one unit of every block; all f32, row-major. */
export interface ControlledMlpWeights {
  readonly hiddenSize: number;
  readonly units: number;
  /** Units of a block; divides them. */
  readonly block: number;
  /** Of the controller: a multiple of 4. */
  readonly rank: number;
  /** [units, hiddenSize], and [hiddenSize, units] with its bias [hiddenSize]. */
  readonly up: Float32Array;
  readonly down: Float32Array;
  readonly downBias: Float32Array;
  /** [rank, hiddenSize], [units, rank], [units] */
  readonly controllerDown: Float32Array;
  readonly controllerUp: Float32Array;
  readonly controllerBias: Float32Array;
}

/**
 * Terraformer's MLP in decoding (Jaszczur et al. 2021, arXiv:2111.12763): y = down · (ReLU(up · x) ⊙ chosen) + bias. Only the rows of `up`
 * that the controller has chosen are read, and of `down` the columns of those that are not 0.
 */
export class ControlledMlp implements Disposable {
  readonly #units: Float32Array;

  private constructor(
    readonly backend: Backend,
    readonly weights: Pick<ControlledMlpWeights, "hiddenSize" | "units" | "block" | "rank">,
    private readonly region: Region,
    private readonly area: WeightArea,
    private readonly controller: { down: Matrix; up: Matrix; bias: Vector },
    private readonly down: { matrix: Matrix; bias: Vector },
  ) {
    this.#units = new Float32Array(weights.units);
  }

  /** Weights of the MLP are held in bf16, the controller's in f32. @throws UsageError for a backend that cannot read single rows, or sizes that it cannot run */
  static async load(backend: Backend, weights: ControlledMlpWeights): Promise<ControlledMlp> {
    const { hiddenSize, units, block, rank, up } = weights;
    if (backend.openArea === undefined) throw new UsageError(`${backend.info.id} cannot multiply with single rows`);
    if ([hiddenSize, units, rank].some((size) => size % 4 !== 0) || units % block !== 0)
      throw new UsageError(
        `${units} units in blocks of ${block}, ${hiddenSize} wide, rank ${rank}: give multiples of 4`,
      );
    const area = await backend.openArea(units * hiddenSize * 2);
    area.bytes(0, units * hiddenSize * 2).set(fromFloat32("BF16", up));
    const region = backend.openRegion({ weightBytes: 4 * (units * hiddenSize + rank * (units + hiddenSize)) });
    const load = (name: string, rows: number, cols: number, values: Float32Array, format: "f32" | "bf16") =>
      region.loadMatrix([denseSource(name, rows, cols, values)], format, {});
    return new ControlledMlp(
      backend,
      weights,
      region,
      area,
      {
        down: await load("controller.down", rank, hiddenSize, weights.controllerDown, "f32"),
        up: await load("controller.up", units, rank, weights.controllerUp, "f32"),
        bias: region.loadVector(weights.controllerBias),
      },
      {
        matrix: await load("down", hiddenSize, units, weights.down, "bf16"),
        bias: region.loadVector(weights.downBias),
      },
    );
  }

  /** The units that the controller chooses for x [1, hiddenSize]: one of every block, the first of equals. */
  async choose(x: Activation): Promise<Uint32Array> {
    const { units, block, rank } = this.weights;
    const [low, logits] = [this.backend.allocate(1, rank), this.backend.allocate(1, units)];
    try {
      this.backend.linear(low, x, this.controller.down);
      this.backend.linear(logits, low, this.controller.up, { bias: this.controller.bias });
      const values = await this.backend.read(logits);
      return Uint32Array.from({ length: units / block }, (_, b) => {
        let best = b * block;
        for (let unit = best + 1; unit < (b + 1) * block; unit++) if (values[unit] > values[best]) best = unit;
        return best;
      });
    } finally {
      this.backend.release(low);
      this.backend.release(logits);
    }
  }

  /** out [1, hiddenSize] = the MLP of x [1, hiddenSize]. */
  async run(out: Activation, x: Activation): Promise<void> {
    const { hiddenSize, units } = this.weights;
    const chosen = await this.choose(x);
    const hidden = this.backend.allocate(1, units);
    this.backend.write(hidden, this.#units);
    const offsets = chosen.map((unit) => unit * hiddenSize * 2);
    this.area.linearRows(hidden, x, { format: "bf16", cols: hiddenSize, offsets, outputs: chosen }, -1);
    this.backend.map(hidden, hidden, "relu");
    this.backend.linear(out, hidden, this.down.matrix, { thresholds: [0], bias: this.down.bias });
    this.backend.release(hidden);
  }

  [Symbol.dispose](): void {
    this.area[Symbol.dispose]();
    this.region[Symbol.dispose]();
  }
}
