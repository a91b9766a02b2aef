import type { LinearStep } from "../../../../arch/index.js";
import { NoKernel } from "../noKernel.js";
import type { Recording } from "../recording.js";
import { columnsOf, isWhole } from "../rooms.js";

/** Maps that share their input are one product: they lie one below the other, and what they give side by side. */
export function linear({ of, maps, add }: LinearStep, recording: Recording): void {
  const weight = recording.place(...maps.map(({ map }) => map.weight));
  const biases = maps.flatMap(({ map }) => map.bias ?? []);
  if (biases.length % maps.length !== 0) throw new NoKernel("biases of some of the maps that share an input");
  if (maps.some(({ map }) => map.rows % 4 !== 0)) throw new NoKernel("maps whose rows are no multiple of four");
  if (add && maps.length > 1) throw new NoKernel("sums of several maps");
  const bias = biases.length > 0 ? recording.place(...biases) : undefined;
  const x = recording.read(of);
  const base = add && recording.read(maps[0].into);
  const y = recording.keep(maps.map(({ into }) => into).join(", "), weight.rows);
  if (base !== undefined && !(isWhole(base) && base.width === y.width)) throw new NoKernel("a sum with a part");
  let first = 0;
  for (const { map, into } of maps) {
    recording.write(into, maps.length === 1 ? y : columnsOf(y, first, map.rows));
    first += map.rows;
  }
  recording.operations.push({
    forward({ operations, rows, memory }) {
      operations.linear(rows(x), weight, rows(y), base && memory(base.room));
      if (bias !== undefined) operations.addBias(memory(y.room), bias);
    },
    back(gradients) {
      const outer = gradients.of(y);
      if (base !== undefined) gradients.passOn(y, base);
      const { at: gradient, accumulate } = gradients.into(x);
      if (base === undefined) gradients.release(y);
      return ({ operations, rows }) => {
        const [dy, dx] = [rows(outer), rows(gradient)];
        if (bias !== undefined) operations.biasGradient(dy.memory, bias);
        operations.weightGradient(dy, weight, rows(x));
        operations.throughWeight(dy, weight, dx, accumulate ? dx.memory : undefined);
      };
    },
  });
}
