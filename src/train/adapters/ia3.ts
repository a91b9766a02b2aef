import * as z from "zod/mini";
import type { AdaptedModule, AdapterMethod } from "./contract.js";

/** Which modules are multiplied where. */
export const inputsOf = z
  ._default(z.array(z.string().check(z.maxLength(256))).check(z.maxLength(64)), ["down_proj"])
  .check(z.describe("modules of which the inputs are multiplied, of others the outputs"));
const options = z.strictObject({ inputsOf });
type Options = z.output<typeof options>;

const nameOf = (module: string) => `${module}.ia3_l`;
export const ofInputs = ({ name, roles }: AdaptedModule, { inputsOf }: Options) =>
  inputsOf.some((target) => roles.includes(target) || name.endsWith(`.${target}`));

/** The factor of an entry of a piece: that of its column, or of its row in the module. */
const indexOf = (inputs: boolean, row: number, column: number) => (inputs ? column : row);

/** Keys, values and what enters the last product of the MLP times learnt vectors, at first ones. */
export const method: AdapterMethod<Options> = {
  id: "ia3",
  title: "(IA)³",
  paper: "Liu et al. 2022, arXiv:2205.05638",
  options,
  parameters(module, options) {
    const length = ofInputs(module, options) ? module.cols : module.rows;
    const first = new Float32Array(length).fill(1);
    return [{ name: nameOf(module.name), shape: [length], layer: "", role: "dense", first }];
  },
  multipliesBias: (module, options) => !ofInputs(module, options),
  effective({ module, rows, weight, values, options }, out) {
    const { cols, name } = module;
    const factors = values.get(nameOf(name))!;
    const inputs = ofInputs(module, options);
    for (const [r, row] of rows.entries()) {
      for (let c = 0, i = r * cols; c < cols; c++, i++) out[i] = weight[i] * factors[indexOf(inputs, row, c)];
    }
  },
  pullBack({ module, rows, weight, options }, outer, gradients) {
    const { cols, name } = module;
    const sums = gradients.get(nameOf(name))!;
    const inputs = ofInputs(module, options);
    for (const [r, row] of rows.entries()) {
      for (let c = 0, i = r * cols; c < cols; c++, i++) sums[indexOf(inputs, row, c)] += weight[i] * outer[i];
    }
  },
  adapter: (modules, values, options) => ({
    kind: "ia3",
    modules: new Map(
      modules.map((module) => [
        module.name,
        {
          factors: Float32Array.from(values.get(nameOf(module.name))!),
          of: ofInputs(module, options) ? "inputs" : "outputs",
        },
      ]),
    ),
  }),
  values({ name }, adapter) {
    const rescaling = adapter.kind === "ia3" ? adapter.modules.get(name) : undefined;
    return rescaling && new Map([[nameOf(name), rescaling.factors]]);
  },
};
