import type { Buffer, ConvolveStep } from "../../arch/index.js";
import type { Matrix } from "../../kernels/index.js";
import { bufferOf, type Pass } from "../pass.js";
import { TokenHistory } from "./history.js";
import type { LoadedSmall, SmallWeights } from "./loaded.js";

/** Numbers of `width` columns each of the positions of a pass, behind those of the positions before them. */
interface Seen {
  /** f32 [before + rows, width] */
  readonly values: Float32Array;
  readonly before: number;
  readonly rows: number;
}

/**
 * Loads convolutions over positions and modules. The host lays out what each module of each position sees; one product with the
 * kernel then serves all of them.
 */
export async function loadConvolution(
  { of, width, modules, maps }: ConvolveStep,
  { matrix }: SmallWeights,
): Promise<LoadedSmall> {
  const channels = width / modules;
  const before = Math.max(...maps.map(({ length }) => length)) - 1;
  const loaded: { kernel: Matrix; length: number; span: number; into: Buffer }[] = [];
  for (const { kernel, ...map } of maps) loaded.push({ ...map, kernel: await matrix(kernel) });
  return {
    open: () => new TokenHistory(),
    async operation(pass) {
      const { backend, x } = pass;
      const seen = seenBy(pass, await backend.read(bufferOf(pass, of)), width, before);
      let laid = "";
      for (const { kernel, length, span, into } of loaded) {
        const patches = pass.scratch(x.rows * modules, length * span * channels, "convolution");
        if (laid !== `${length} ${span}`) backend.write(patches, patchesOf(seen, { modules, channels, length, span }));
        laid = `${length} ${span}`;
        backend.linear(bufferOf(pass, into).reshape(channels), patches, kernel);
      }
    },
  };
}

/** What the parts of a pass see, each behind its own text; their rows are remembered. */
function seenBy({ parts, layer }: Pass, rows: Float32Array, width: number, before: number): Seen[] {
  return parts.map(({ firstRow, rows: count, start, history }) => {
    const own = rows.subarray(firstRow * width, (firstRow + count) * width);
    const held = history();
    const values = new Float32Array((before + count) * width);
    values.set(held.before(layer, start, before, width));
    values.set(own, before * width);
    held.put(layer, start, own, width);
    return { values, before, rows: count };
  });
}

/** f32 [rows · modules, length · span · channels] of all parts, one behind the other; 0 beside the outer modules. */
function patchesOf(
  seen: readonly Seen[],
  { modules, channels, length, span }: { modules: number; channels: number; length: number; span: number },
): Float32Array {
  const [width, size, around] = [modules * channels, length * span * channels, Math.floor(span / 2)];
  const patches = new Float32Array(seen.reduce((sum, { rows }) => sum + rows, 0) * modules * size);
  let to = 0;
  for (const { values, before, rows } of seen) {
    for (let row = 0; row < rows; row++) {
      for (let module = 0; module < modules; module++, to += size) {
        // The modules that it sees lie side by side.
        const [first, end] = [Math.max(0, module - around), Math.min(modules, module - around + span)];
        const skipped = (first - module + around) * channels;
        for (let back = 0; back < length; back++) {
          const from = (before + row - back) * width;
          const run = values.subarray(from + first * channels, from + end * channels);
          patches.set(run, to + back * span * channels + skipped);
        }
      }
    }
  }
  return patches;
}
