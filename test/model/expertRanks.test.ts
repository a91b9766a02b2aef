import { PassThrough } from "node:stream";
import { MessageChannel } from "node:worker_threads";
import { afterEach, beforeAll, describe, expect, test } from "vitest";
import { parseModelConfig } from "../../src/arch/index.js";
import { DeviceError, UsageError } from "../../src/core/index.js";
import { openCheckpoint } from "../../src/io/index.js";
import { directoryFiles } from "../../src/io/index.node.js";
import { streamLink } from "../../src/jobs/index.js";
import { type Backend, openBackend } from "../../src/kernels/index.js";
import { decodeAnswer, decodeWork, encodeWork } from "../../src/model/expertRanks/messages.js";
import { shareOf } from "../../src/model/expertRanks/share.js";
import {
  type ActivationThresholds,
  ExpertRanks,
  type ForwardOptions,
  loadModel,
  type Model,
  portLink,
  type RankLink,
  type RankPort,
  serveExperts,
  type Tap,
} from "../../src/model/index.js";
import { architectureGolden, logitsOf, path } from "../golden/golden.js";
import { roles } from "../support/gatedBlock.js";

const closing: Disposable[] = [];
afterEach(() => {
  for (const one of closing.splice(0).reverse()) one[Symbol.dispose]();
});
const closed = <T extends Disposable>(one: T): T => {
  closing.push(one);
  return one;
};
const backend = async (id: "reference" | "wasm"): Promise<Backend> =>
  closed(await openBackend(id, ...(id === "wasm" ? [{ threads: 1 }] : [])));

const ports = (): [RankLink, RankLink] => {
  const { port1, port2 } = new MessageChannel();
  return [portLink(port1 as unknown as RankPort), portLink(port2 as unknown as RankPort)];
};
const streams = (): [RankLink, RankLink] => {
  const [there, back] = [new PassThrough(), new PassThrough()];
  return [streamLink(back, there), streamLink(there, back)];
};

interface Served {
  ranks: ExpertRanks;
  /** Weight bytes of each rank but the first, once they are ready. */
  loaded: number[];
}

/** Ranks 1 … of a golden, each with a backend of its own. */
async function serve(name: string, count: number, id: "reference" | "wasm", link = ports): Promise<Served> {
  const links = Array.from({ length: count - 1 }, link);
  const loaded = links.map(() => 0);
  for (const [l, [, there]] of links.entries()) {
    const checkpoint = await openCheckpoint(directoryFiles(path(`arch/${name}`)));
    const { spec } = parseModelConfig(checkpoint.config, "config.json");
    const own = await backend(id);
    const { openRegion } = own;
    own.openRegion = (plan) => {
      loaded[l] += plan.weightBytes;
      return openRegion.call(own, plan);
    };
    const how = { rank: l + 1, ranks: count, weights: "f32" as const };
    const served = serveExperts(spec, checkpoint, own, how, there).finally(() => checkpoint.close());
    served.catch(() => {});
  }
  return { ranks: closed(new ExpertRanks(links.map(([here]) => here))), loaded };
}

async function open(name: string, id: "reference" | "wasm", expertRanks?: ExpertRanks): Promise<Model> {
  const checkpoint = await openCheckpoint(directoryFiles(path(`arch/${name}`)));
  try {
    return await loadModel(checkpoint, await backend(id), { weights: "f32", expertRanks });
  } finally {
    await checkpoint.close();
  }
}

const words = (rows: readonly Float32Array[]) => rows.map((row) => Array.from(new Uint32Array(row.slice().buffer)));

test("experts are shared out without gaps, also where ranks do not divide them", () => {
  for (const [experts, ranks] of [
    [8, 2],
    [8, 3],
    [256, 7],
    [4, 4],
  ]) {
    const shares = Array.from({ length: ranks }, (_, r) => shareOf(experts, r, ranks));
    expect(shares.flatMap(({ first, count }) => Array.from({ length: count }, (_, i) => first + i))).toEqual([
      ...Array(experts).keys(),
    ]);
    for (const { count } of shares) expect(count).toBeGreaterThan(0);
  }
  expect([0, 1].map((rank) => shareOf(8, rank, 2))).toEqual([
    { first: 0, count: 4 },
    { first: 4, count: 4 },
  ]);
});

describe.each(["mixtral", "olmoe", "deepseek_v3", "gpt_oss"])("%s", (name) => {
  const { ids } = architectureGolden(name);
  let alone: { prompt: number[][]; tokens: number[][] };
  /** Experts of every row, by pass and layer. */
  const routed: number[][][] = [];
  let width: number;
  let experts: number;

  beforeAll(async () => {
    const model = await open(name, "wasm");
    width = model.config.hiddenSize;
    experts = model.config.experts!.count;
    const sites = model.config.spec.blocks.flatMap(({ steps }) =>
      steps.flatMap((step) => (step.do === "mixture" ? step.site.id : [])),
    );
    const tap: Tap = {
      sites,
      async onActivation(_layer, _site, activation, slots) {
        const rows = new Set(slots!.rows).size;
        expect(activation.rows).toBe(slots!.rows.length);
        routed.push(Array.from({ length: rows }, (_, r) => [...slots!.experts].filter((_, s) => slots!.rows[s] === r)));
      },
    };
    alone = {
      prompt: words(await logitsOf(model, ids, ids.length, { tap })),
      tokens: words(await logitsOf(model, ids, 1)),
    };
  });

  test.each([2, 4])("%i ranks: the same bits, and the bytes of the formula", async (count) => {
    const { ranks } = await serve(name, count, "wasm");
    const model = await open(name, "wasm", ranks);
    expect(words(await logitsOf(model, ids))).toEqual(alone.prompt);
    // A row goes once to every other rank that has experts of its, and comes back once for every expert there.
    const rankOf = (expert: number) => Math.floor((expert * count) / experts);
    const others = routed.flat().map((row) => row.map(rankOf).filter((rank) => rank > 0));
    const { dispatched, combined, overhead } = ranks.takeTraffic();
    expect(dispatched).toBe(others.reduce((sum, row) => sum + new Set(row).size, 0) * width * 4);
    expect(combined).toBe(others.reduce((sum, row) => sum + row.length, 0) * width * 4);
    expect(overhead).toBeGreaterThan(0);
    expect(words(await logitsOf(model, ids, 1))).toEqual(alone.tokens);
  });
});

test("over byte streams, with thresholds, and every rank holds its own experts only", async () => {
  const thresholds: ActivationThresholds = {
    maps: Array.from({ length: 2 }, () => Object.fromEntries(roles.map((role, r) => [role, 0.05 * (r + 1)]))),
    gate: [0.05, 0.1],
  };
  const { ids } = architectureGolden("mixtral");
  const options: ForwardOptions = { sparseFrom: 5, thresholds };
  const alone = await open("mixtral", "reference");
  const { ranks, loaded } = await serve("mixtral", 3, "reference", streams);
  const model = await open("mixtral", "reference", ranks);
  for (const chunk of [1, ids.length]) {
    expect(words(await logitsOf(model, ids, chunk, options))).toEqual(
      words(await logitsOf(alone, ids, chunk, options)),
    );
  }
  // Four experts at three ranks: one, one and two, of two layers, with three matrices each.
  const expert = 2 * 3 * 160 * 64 * 4;
  expect(loaded).toEqual([expert, 2 * expert]);
  expect(alone.weightBytes.loaded - model.weightBytes.loaded).toBe(3 * expert);
});

test("what cannot be spread is refused, and a rank that ends is told to all who wait", async () => {
  const { ids } = architectureGolden("mixtral");
  const fails = (work: Promise<unknown>) =>
    work.then(
      () => undefined,
      (error: Error) => error,
    );
  expect(await fails(open("llama", "reference", closed(new ExpertRanks([ports()[0]]))))).toBeInstanceOf(UsageError);
  const six = closed(new ExpertRanks(Array.from({ length: 5 }, () => ports()[0])));
  expect((await fails(open("mixtral", "reference", six)))?.message).toContain("from 1 to 4");
  const other = (await serve("gpt_oss", 2, "reference")).ranks;
  expect((await fails(open("olmoe", "reference", other)))?.message).toContain("another model");

  const { ranks } = await serve("mixtral", 2, "reference");
  const model = await open("mixtral", "reference", ranks);
  const tap: Tap = { sites: ["mlpInput"], async onActivation() {} };
  expect(await fails(logitsOf(model, ids, 4, { tap }))).toBeInstanceOf(UsageError);
  ranks[Symbol.dispose]();
  expect(await fails(logitsOf(model, ids))).toBeInstanceOf(DeviceError);

  const [here, there] = ports();
  const gone = closed(new ExpertRanks([here]));
  there.close();
  expect(await fails(open("mixtral", "reference", gone))).toBeInstanceOf(DeviceError);
});

test("messages that are none are refused by what is wrong with them", () => {
  const work = {
    layer: 1,
    x: Float32Array.of(1, 2, 3, 4),
    rows: 1,
    slotRows: Uint32Array.of(0),
    slotExperts: Uint32Array.of(2),
  };
  const bytes = encodeWork({ kind: "work", id: 7, ...work });
  expect(decodeWork(bytes, 4)).toMatchObject({ kind: "work", id: 7, ...work });
  expect(() => decodeWork(bytes, 8)).toThrow("6 numbers");
  expect(() => decodeWork(bytes.subarray(0, bytes.length - 2), 4)).toThrow("whole words");
  expect(() => decodeWork(Uint8Array.of(255, 255, 255, 255), 4)).toThrow("header");
  expect(() => decodeAnswer(bytes)).toThrow("kind");
  const outside = encodeWork({ kind: "work", id: 7, ...work, slotRows: Uint32Array.of(1) });
  expect(() => decodeWork(outside, 4)).toThrow("a row that was not sent");
});
