import { breathe, median } from "../../core/index.js";
import type { Threshold } from "../../tensor/index.js";
import { keepAbove, ThresholdSearch, topS } from "../../tensor/internal.js";
import { randomFor } from "../seeds.js";
import type { Cell, CellOptions, CellResult, Experiment, Scale } from "./contract.js";

/** Seconds of the study for its 1.8 million weights: one heap sort over all, and one for each of four blocks. */
const published = { global: 41.55, layer: 10.58 };

const weights = 1_835_008;
const density = 0.2;
const chunk = 1 << 22;

interface Timing extends CellResult {
  entries: number;
  kept: number;
  milliseconds: number;
  /** Memory of the search itself besides the entries it is shown. */
  workingBytes: number;
}

const sizes: Readonly<Record<Scale, { repeats: number; streamed: number }>> = {
  smoke: { repeats: 2, streamed: 1 << 23 },
  laptop: { repeats: 15, streamed: 1_000_000_000 },
  gpu: { repeats: 15, streamed: 7_000_000_000 },
};

export const experiment: Experiment = {
  id: "selection",
  timed: true,
  title: "Time of exact top-s selection",
  description:
    "How long it takes to find the s largest of 1.8 million weights, which the study of sparse optimisation sorts by a heap, together and for each of four blocks; and of a billion weights that are only ever seen in pieces of 16 MB.",
  seeds: { smoke: 1, laptop: 1, gpu: 1 },
  plan(scale, seeds) {
    const { repeats, streamed } = sizes[scale];
    return Array.from({ length: seeds }, (_, seed) => [
      { key: `global-seed${seed}`, seed, settings: { kind: "global", entries: weights, repeats } },
      { key: `layer-seed${seed}`, seed, settings: { kind: "layer", entries: weights, repeats } },
      { key: `stream-seed${seed}`, seed, settings: { kind: "stream", entries: streamed, repeats: 1 } },
    ]).flat();
  },
  run: (cell, options) => (cell.settings.kind === "stream" ? timeStream(cell, options) : timeInMemory(cell, options)),
  async report(cells) {
    const of = (kind: string) => cells.filter((c) => c.settings.kind === kind).map((c) => c.result as Timing)[0];
    const row = (name: string, timing: Timing, study: number | undefined) => [
      name,
      timing.entries.toLocaleString("en"),
      timing.kept.toLocaleString("en"),
      timing.milliseconds.toFixed(1),
      ((timing.milliseconds * 1e6) / timing.entries).toFixed(1),
      study === undefined ? "–" : `${study} s`,
      study === undefined ? "–" : `${Math.round((1000 * study) / timing.milliseconds)}×`,
    ];
    const extrapolated = (7e9 / of("stream").entries) * of("stream").milliseconds;
    return {
      protocol: [
        ["entries", "normal in memory; 32 random bits as a number in ±1 in the stream, made anew in each pass"],
        ["kept", `${density * 100} %, exactly; counted again after the selection`],
        ["time", "median of repeats on one thread; in the stream the search alone, without making the entries"],
      ],
      tables: [
        {
          title: "Exact top-s",
          columns: ["", "entries", "kept", "ms", "ns an entry", "study", "faster by"],
          rows: [
            row("all together", of("global"), published.global),
            row("four blocks, one after the other", of("layer"), published.layer),
            row("in pieces of 16 MB, 4 passes", of("stream"), undefined),
          ],
        },
      ],
      figures: [],
      notes: [
        "The search keeps 16 KiB of counts. The study sorts with a heap in interpreted Python; its extrapolation to 7 billion weights is 2.95 days.",
        `By the streamed rate 7 billion weights take ${(extrapolated / 1000).toFixed(0)} s.`,
      ],
    };
  },
};

async function timeInMemory(cell: Cell, { signal }: CellOptions): Promise<Timing> {
  const { kind, entries, repeats } = cell.settings as { kind: string; entries: number; repeats: number };
  const random = randomFor(cell.seed, "entries");
  const all = Float32Array.from({ length: entries }, () => random.normal());
  const parts = kind === "global" ? 1 : 4;
  const blocks = Array.from({ length: parts }, (_, p) =>
    all.subarray(Math.floor((p * entries) / parts), Math.floor(((p + 1) * entries) / parts)),
  );
  const times: number[] = [];
  let kept = 0;
  for (let repeat = 0; repeat < repeats; repeat++) {
    await breathe(signal);
    const startMs = performance.now();
    const masks = blocks.map((block) => topS([block], Math.round(density * block.length))[0]);
    times.push(performance.now() - startMs);
    kept = masks.reduce((sum, mask) => sum + mask.reduce((ones, keep) => ones + keep, 0), 0);
  }
  return { entries, kept, milliseconds: median(times), workingBytes: 2 * 8 * 1024 };
}

async function timeStream(cell: Cell, { signal }: CellOptions): Promise<Timing> {
  const { entries } = cell.settings as { entries: number };
  const wanted = Math.round(density * entries);
  const search = new ThresholdSearch(wanted);
  let elapsedMs = 0;
  for (let pass = 0; pass < search.passes; pass++) {
    for (const piece of stream(cell.seed, entries)) {
      await breathe(signal);
      const startMs = performance.now();
      search.add(piece);
      elapsedMs += performance.now() - startMs;
    }
    search.endPass();
  }
  const { kept, milliseconds } = await keepStream(cell, search.threshold, entries, signal);
  return { entries, kept, milliseconds: elapsedMs + milliseconds, workingBytes: 2 * 8 * 1024 };
}

/** The last pass, which makes the masks piece by piece. */
async function keepStream(cell: Cell, threshold: Threshold, entries: number, signal: AbortSignal | undefined) {
  const mask = new Uint8Array(chunk);
  let { ties } = threshold;
  let kept = 0;
  let milliseconds = 0;
  for (const piece of stream(cell.seed, entries)) {
    await breathe(signal);
    const startMs = performance.now();
    ties = keepAbove([piece], { bits: threshold.bits, ties }, [mask]);
    milliseconds += performance.now() - startMs;
    for (let i = 0; i < piece.length; i++) kept += mask[i];
  }
  return { kept, milliseconds };
}

/** Pieces of one sequence of numbers in ±1, the same in every pass; the array is reused. */
function* stream(seed: number, entries: number): Iterable<Float32Array> {
  const piece = new Float32Array(chunk);
  let state = seed + 0x9e3779b9;
  for (let from = 0; from < entries; from += chunk) {
    const length = Math.min(chunk, entries - from);
    for (let i = 0; i < length; i++) {
      state ^= state << 13;
      state ^= state >>> 17;
      state ^= state << 5;
      piece[i] = state * 2 ** -31;
    }
    yield piece.subarray(0, length);
  }
}
