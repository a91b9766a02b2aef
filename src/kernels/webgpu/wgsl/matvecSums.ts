import type { GpuFormat } from "../formats.js";

/** How the threads of a workgroup share a row tile: `lanes` units of a column × columns side by side. */
export interface SumTuning {
  subgroups32: boolean;
  joinBySubgroups: boolean;
  threads: number;
}

/** A tile of `tileRows` rows, of which a thread holds the sums of `unitRows`, in as many vec4s as there are `rows`. */
type SummedRows = Pick<GpuFormat, "tileRows" | "unitRows" | "rows">;

/** How the sums of all threads become those of the rows of a tile, two rows at a time. */
export interface RowSums {
  /** Pairs of f32 that it needs in `pool`. */
  readonly poolLength: number;
  /** Takes the vec4s `acc0 …` of every thread to `pool`; ends with a barrier. */
  readonly store: string;
  /** `totalOf(pair)`: the sums of rows `rowOf(pair)` and the next; every pair of the tile is asked for once. */
  readonly functions: string;
}

/**
 * By subgroups: every thread holds the sums of `unitRows` rows over its columns, in vec4s. The columns of 32 threads are
 * joined by halving: of two threads each gives away the half that the other keeps, until one vec4 is left. Otherwise all
 * sums meet in memory.
 */
export const rowSums = (format: SummedRows, { threads, subgroups32, joinBySubgroups }: SumTuning): RowSums =>
  subgroups32 && joinBySubgroups ? bySubgroups(format, threads) : byMemory(format, threads);

function bySubgroups({ tileRows, unitRows, rows }: SummedRows, threads: number): RowSums {
  const lanes = tileRows / unitRows;
  const subgroups = threads / 32;
  const lines: string[] = ["var quad = 0u;"];
  let held = rows.map((_, i) => `acc${i}`);
  for (let distance = 16; distance >= lanes; distance /= 2) {
    const half = held.length / 2;
    const next = Array.from({ length: Math.max(1, half) }, (_, i) => `sum${distance}${i}`);
    if (half < 1) lines.push(`let ${next[0]} = ${held[0]} + subgroupShuffleXor(${held[0]}, ${distance}u);`);
    else {
      lines.push(`let upper${distance} = (t & ${distance}u) != 0u;`, `quad += select(0u, ${half}u, upper${distance});`);
      for (const [i, name] of next.entries()) {
        const [low, high] = [held[i], held[i + half]];
        const given = `subgroupShuffleXor(select(${high}, ${low}, upper${distance}), ${distance}u)`;
        lines.push(`let ${name} = select(${low}, ${high}, upper${distance}) + ${given};`);
      }
    }
    held = next;
  }
  return {
    poolLength: (subgroups * tileRows) / 2,
    store: /* wgsl */ `
  ${lines.join("\n  ")}
  let place = (t / 32u * TILE_ROWS + t % LANES * UNIT_ROWS) / 2u + quad * 2u;
  ${held
    .map(
      (name, i) =>
        `pool[place + ${2 * i}u] = bitcast<vec2<u32>>(${name}.xy); pool[place + ${2 * i + 1}u] = bitcast<vec2<u32>>(${name}.zw);`,
    )
    .join("\n  ")}
  workgroupBarrier();`,
    functions: /* wgsl */ `
fn rowOf(pair: u32) -> u32 { return 2u * pair; }
fn totalOf(pair: u32) -> vec2<f32> {
  var total = vec2<f32>();
  for (var s = 0u; s < ${subgroups}u; s += 1u) { total += bitcast<vec2<f32>>(pool[s * ${tileRows / 2}u + pair]); }
  return total;
}`,
  };
}

function byMemory({ tileRows, unitRows, rows }: SummedRows, threads: number): RowSums {
  const lanes = tileRows / unitRows;
  const columnGroups = threads / lanes;
  const pairs = tileRows / 2;
  // So chosen that the sums of neighbouring pairs of rows lie in other banks.
  const pitch = threads + lanes;
  // Threads beyond the pairs take a share of the column groups.
  const shares = Math.max(1, threads / pairs);
  const joinShares = /* wgsl */ `
  let own = addPairs(t % ${pairs}u, t / ${pairs}u);
  workgroupBarrier();
  pool[t] = bitcast<vec2<u32>>(own);
  workgroupBarrier();`;
  return {
    poolLength: (pitch * unitRows) / 2,
    store: /* wgsl */ `
  ${rows
    .map(
      (_, i) =>
        `pool[${2 * i * pitch}u + t] = bitcast<vec2<u32>>(acc${i}.xy); pool[${(2 * i + 1) * pitch}u + t] = bitcast<vec2<u32>>(acc${i}.zw);`,
    )
    .join("\n  ")}
  workgroupBarrier();
  ${shares === 1 ? "" : joinShares}`,
    functions: /* wgsl */ `
fn rowOf(pair: u32) -> u32 { return pair % LANES * UNIT_ROWS + pair / LANES * 2u; }
fn totalOf(pair: u32) -> vec2<f32> {
  ${
    shares === 1
      ? "return addPairs(pair, 0u);"
      : /* wgsl */ `
  var total = vec2<f32>();
  for (var s = 0u; s < ${shares}u; s += 1u) { total += bitcast<vec2<f32>>(pool[s * ${pairs}u + pair]); }
  return total;`
  }
}
/** Sums of two rows, of one share of the column groups. Lanes run fastest. */
fn addPairs(pair: u32, share: u32) -> vec2<f32> {
  var total = vec2<f32>();
  let first = pair / LANES * ${pitch}u + pair % LANES;
  for (var g = share * ${columnGroups / shares}u; g < (share + 1u) * ${columnGroups / shares}u; g += 1u) {
    total += bitcast<vec2<f32>>(pool[first + g * LANES]);
  }
  return total;
}`,
  };
}
