// Products of many rows on the matrix units, in every shape of workgroup that is named, for one matrix at a time.
//
//   node matmul.mjs [--formats bf16,q8,q4] [--shapes 4096x4096,22016x4096,4096x11008] [--tokens 128,512]
//                   [--tiles 64:2x2:1:floats:0,128:4x2:1:halves:264] [--rounds 5] [--out result.json]
//
// A tile is rows of x : subgroups down × across : groups of 32 columns at once : how x comes : workgroups wanted. Weights are
// random; each result is compared with that of the plain kernel. Times are the GPU's, by timestamps, once it has run the case for
// a while; medians.

import { writeFileSync } from "node:fs";
import { Random } from "../../dist/core/index.js";
import { Context } from "../../dist/kernels/webgpu/context.js";
import { Device } from "../../dist/kernels/webgpu/device.js";
import { gpuFormat } from "../../dist/kernels/webgpu/formats.js";
import { linear } from "../../dist/kernels/webgpu/linear.js";
import { candidates, loadMatrix, tensorMatmul } from "../../dist/kernels/webgpu/matrix.js";
import { ActivationPool } from "../../dist/kernels/webgpu/storage.js";
import { readOptions } from "../../scripts/options.mjs";

const { values } = readOptions({
  options: {
    formats: { type: "string", default: "bf16" },
    shapes: { type: "string", default: "4096x4096,22016x4096,4096x11008" },
    tokens: { type: "string", default: "128,512" },
    tiles: { type: "string", default: "64:2x2:1:floats:0,64:2x2:1:halves:0,128:4x2:1:halves:264" },
    rounds: { type: "string", default: "5" },
    out: { type: "string" },
  },
});

const tileOf = (text) => {
  const [tokens, teams, groupsAtOnce, input, workgroups] = text.split(":");
  const [teamsDown, teamsAcross] = teams.split("x").map(Number);
  const numbers = { tokens: Number(tokens), groupsAtOnce: Number(groupsAtOnce), workgroups: Number(workgroups) };
  return { ...numbers, teamsDown, teamsAcross, halves: input === "halves" };
};
const median = (numbers) => numbers.toSorted((a, b) => a - b)[numbers.length >> 1];
const counters = { weightBytesRead: 0, inputs: 0, inputsSkipped: 0, kvBytesRead: 0 };

const device = await Device.open();
const context = new Context(device);
const pool = new ActivationPool(device, context.recorder);
const random = new Random(1);
const results = [];

/** Writes random numbers, once the queue has taken what was recorded. */
function fill({ memory }, count) {
  context.recorder.submit();
  device.gpu.queue.writeBuffer(
    memory.buffer,
    0,
    Float32Array.from({ length: count }, () => random.normal()),
  );
}

for (const id of values.formats.split(",")) {
  const format = gpuFormat(id);
  const plain = candidates(device, format).matmuls.filter(({ tile }) => tile === undefined);
  for (const shape of values.shapes.split(",")) {
    const [rows, cols] = shape.split("x").map(Number);
    const block = Float32Array.from({ length: 128 * cols }, () => random.normal() / Math.sqrt(cols));
    const bytes = new Uint8Array(block.buffer);
    const read = async (_start, count, into) => into.set(bytes.subarray(0, count * cols * 4));
    const matrix = await loadMatrix(device, [{ name: "random", rows, cols, dtype: "F32", read }], id, {}, {});
    for (const tokens of values.tokens.split(",").map(Number)) {
      const [x, out] = [pool.take(tokens, cols), pool.take(tokens, rows)];
      fill(x, tokens * cols);
      const product = (kernels) =>
        linear(context, out, x, { ...matrix, kernels: { matvecs: {}, matmuls: kernels } }, {}, counters);
      const result = async (kernels) => {
        product(kernels);
        return new Float32Array(await context.recorder.read(out.memory, 0, tokens * rows * 4));
      };
      const expected = await result(plain);
      for (const text of values.tiles.split(",")) {
        const name = `${id} ${shape}, ${tokens} tokens, ${text}`;
        try {
          const kernels = [tensorMatmul(format, device.tensorShape, tileOf(text))];
          const actual = await result(kernels);
          const squares = [0, 0];
          for (let i = 0; i < actual.length; i += 7) {
            squares[0] += (actual[i] - expected[i]) ** 2;
            squares[1] += expected[i] ** 2;
          }
          const times = [];
          const warm = performance.now() + 200;
          while (performance.now() < warm) {
            for (let i = 0; i < 20; i++) product(kernels);
            await context.recorder.settle();
          }
          for (let round = 0; round < Number(values.rounds); round++) {
            const ms = await context.recorder.time(async () => {
              for (let i = 0; i < 20; i++) product(kernels);
            });
            await context.recorder.settle();
            times.push(ms / 20);
          }
          const microseconds = median(times) * 1000;
          const teraflops = (2 * tokens * rows * cols) / microseconds / 1e6;
          const error = Math.sqrt(squares[0] / squares[1]);
          results.push({ format: id, rows, cols, tokens, tile: text, microseconds, teraflops, error });
          console.log(
            `${name}: ${microseconds.toFixed(1)} µs, ${teraflops.toFixed(0)} TFLOP/s, error ${error.toExponential(1)}`,
          );
        } catch (error) {
          console.log(`${name}: ${error.message.slice(0, 300)}`);
        }
      }
      for (const activation of [x, out]) pool.giveBack(activation);
    }
    for (const { memory } of matrix.chunks) context.recorder.freeLater(memory);
    await context.recorder.settle();
  }
}
if (values.out !== undefined) writeFileSync(values.out, JSON.stringify(results));
process.exit(0); // a live GPU object would keep the process running
