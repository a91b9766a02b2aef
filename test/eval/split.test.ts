import { expect, test, vi } from "vitest";
import { measureSplit } from "../../src/eval/index.js";
import { openBackend } from "../../src/kernels/index.js";
import { parseKv } from "../../src/runtime/index.js";
import { load, path } from "../golden/golden.js";
import { recording } from "../model/recordingBackend.js";

test.each(["llama", "gemma2", "gpt_neox"])(
  "the time of a pass of %s, prefill and decode, is split by its parts",
  async (family) => {
    using backend = await openBackend("wasm", { threads: 1 });
    using model = await load(path(`arch/${family}`), backend, "f32");
    const tokens = Uint32Array.from({ length: 24 }, (_, i) => (i * 7) % 40);
    const times = { prefillTokens: 12, contextTokens: 16, decodeTokens: 4, repeats: 1 };
    for (const kv of [undefined, parseKv("recent:budget=8")]) {
      const split = await measureSplit({ name: "it", model, kv }, tokens, times);
      expect(split).toMatchObject({ name: "it", ...times });
      for (const { ioMs, ...parts } of [split.prefill, split.decode]) {
        expect(ioMs).toBe(0);
        for (const ms of Object.values(parts)) expect(ms).toBeGreaterThan(0);
      }
    }
    await expect(measureSplit({ name: "it", model }, tokens.subarray(0, 19), times)).rejects.toThrow("needs 20");
  },
);

test("a prompt's last token is the prompt's, where it takes a pass of its own", async () => {
  using backend = await openBackend("wasm", { threads: 1 });
  using model = await load(path("arch/llama"), backend, "f32");
  const thresholds = { maps: model.config.blocks.map(() => ({ o_proj: 0.1 })) };
  const passes: [rows: number, dense: boolean][] = [];
  const block = vi.spyOn(model, "block");
  const tokens = Uint32Array.from({ length: 131 }, (_, i) => (i * 7) % 40);
  await measureSplit({ name: "it", model, thresholds }, tokens, { prefillTokens: 129, decodeTokens: 2, repeats: 1 });
  for (const [layer, x, , , options] of block.mock.calls) {
    if (layer === 0) passes.push([x.rows, options?.thresholds === "dense"]);
  }
  const round = [
    [128, true],
    [1, true],
    [1, false],
    [1, false],
  ];
  expect(passes).toEqual([...round, ...round]);
});

test.each([false, true])("attention ends with what its projection adds, fused %s", async (fused) => {
  using backend = await openBackend("wasm", { threads: 1 });
  const recorded = recording(backend, fused);
  using model = await load(path("arch/llama"), recorded.backend, "f32");
  using cache = model.createCache(4);
  const x = model.embed(Uint32Array.of(1, 2));
  recorded.take();
  let attended: string[] = [];
  await model.block(0, x, cache, 0, {
    onAttended: async () => {
      attended = recorded.take();
    },
  });
  const last = attended.at(-1)!;
  expect(last).toContain("o_proj");
  expect(last).toContain("accumulate: true");
  expect(recorded.take()[0]).toContain("rmsNorm");
  backend.release(x);
});
