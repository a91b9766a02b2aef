import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { type Activation, type Backend, type Chosen, openBackend } from "../../src/kernels/index.js";
import type { ReferenceActivation } from "../../src/kernels/reference/storage.js";
import { topK } from "../../src/kernels/reference/topK.js";
import type { Model } from "../../src/model/index.js";
import { collect, type GenerateOptions, generate, Sequence } from "../../src/runtime/index.js";
import type { Tokenizer } from "../../src/text/index.js";
import { architectureGolden, load, path } from "../golden/golden.js";

// A backend that chooses tokens by itself is given the next one before the host has seen the last.

const golden = architectureGolden("llama");
const prompt = golden.greedyPrompt;
const steps = golden.greedy.length;

/** The reference backend with `choose`, which has its result at once and gives it when it is read. */
class Choosing {
  chosen = 0;
  open = 0;
  constructor(readonly backend: Backend) {
    backend.choose = (activation: Activation): Chosen => {
      const source = activation as ReferenceActivation;
      const tops = Array.from({ length: source.rows }, (_, r) => topK(source.row(r), 1));
      this.chosen++;
      this.open++;
      const close = () => this.open--;
      return {
        length: source.rows,
        embed: (out, table) =>
          backend.embed(
            out,
            table,
            Uint32Array.from(tops, ({ ids }) => ids[0]),
          ),
        read: async () => {
          close();
          return tops;
        },
        [Symbol.dispose]: close,
      };
    };
  }
}

let plain: Model;
let ahead: Model;
let choosing: Choosing;
beforeAll(async () => {
  plain = await load(path("arch/llama"), await openBackend("reference"), "f32");
  choosing = new Choosing(await openBackend("reference"));
  ahead = await load(path("arch/llama"), choosing.backend, "f32");
});
afterAll(() => {
  for (const model of [plain, ahead]) model.backend[Symbol.dispose]();
});

describe("generating one token ahead", () => {
  test("gives the golden tokens and runs one token more than it gives, none at the end of a known length", async () => {
    choosing.chosen = 0;
    const { tokenIds } = await collect(generate(ahead, prompt, { maxTokens: steps, stopIds: [] }));
    expect(tokenIds).toEqual(golden.greedy);
    expect(choosing).toMatchObject({ chosen: steps, open: 0 });
    const stop = golden.greedy[3];
    const upTo = golden.greedy.indexOf(stop) + 1;
    choosing.chosen = 0;
    await collect(generate(ahead, prompt, { maxTokens: steps, stopIds: [stop] }));
    expect(choosing).toMatchObject({ chosen: upTo + 1, open: 0 });
  });

  test("makes the text of a token once the next one is under way", async () => {
    choosing.chosen = 0;
    /** How many tokens were chosen or under way whenever something was decoded. */
    const underWay: number[] = [];
    const tokenizer = {
      specialIds: new Set<number>(),
      decode: (ids: readonly number[]) => {
        // The end of the prompt is decoded before.
        if (choosing.chosen > 0) underWay.push(choosing.chosen);
        return ids.map((id) => `${id} `).join("");
      },
    } as unknown as Tokenizer;
    let given = 0;
    for await (const { text, id } of generate(ahead, prompt, { maxTokens: 5, stopIds: [], tokenizer })) {
      given++;
      expect(text).toBe(`${id} `);
      // The last has none after it.
      expect(new Set(underWay), `token ${given}`).toEqual(new Set([Math.min(given + 1, 5)]));
      underWay.length = 0;
    }
    expect(given).toBe(5);
  });

  const endings: [string, GenerateOptions, number][] = [
    ["after as many tokens as asked for", { maxTokens: 5, stopIds: [] }, 100],
    ["after one token", { maxTokens: 1, stopIds: [] }, 100],
    ["at a stop token", { maxTokens: steps, stopIds: [golden.greedy[4]] }, 100],
    ["at the first token", { maxTokens: steps, stopIds: [golden.greedy[0]] }, 100],
    ["when the sequence is full", { maxTokens: steps, stopIds: [] }, prompt.length + 3],
    ["when the prompt fills the sequence", { maxTokens: steps, stopIds: [] }, prompt.length],
  ];
  for (const [when, options, capacity] of endings) {
    test(`ends ${when} as without, with the same tokens in the sequence, which goes on alike`, async () => {
      const ends = [];
      for (const model of [plain, ahead]) {
        using sequence = new Sequence(model, capacity);
        const { reason, tokenIds } = await collect(generate(model, prompt, { ...options, sequence }));
        const left = [...sequence.tokens];
        sequence.rewind(prompt.length - 2);
        const again = await collect(generate(model, prompt, { ...options, sequence }));
        ends.push({ reason, tokenIds, left, again: again.tokenIds });
      }
      expect(ends[1]).toEqual(ends[0]);
      expect(ends[0].again).toEqual(ends[0].tokenIds);
      expect(choosing.open).toBe(0);
    });
  }

  test("two generations in turns give what each gives alone", async () => {
    const other = prompt.slice(3);
    const alone = (await collect(generate(plain, other, { maxTokens: 8, stopIds: [] }))).tokenIds;
    const both = [prompt, other].map((start) => generate(ahead, start, { maxTokens: 8, stopIds: [] }));
    const given: number[][] = [[], []];
    for (let i = 0; i < 8; i++)
      for (const [g, generation] of both.entries()) given[g].push((await generation.next()).value!.id);
    expect(given).toEqual([golden.greedy.slice(0, 8), alone]);
  });

  test("leaving early or an abort leaves nothing open, and memory as it was", async () => {
    await collect(generate(ahead, prompt, { maxTokens: 3, stopIds: [] }));
    const bytes = ahead.backend.memoryBytes();
    for await (const step of generate(ahead, prompt, { maxTokens: 9, stopIds: [] })) if (step.id >= 0) break;
    const controller = new AbortController();
    const aborted = (async () => {
      for await (const _ of generate(ahead, prompt, { maxTokens: 9, stopIds: [], signal: controller.signal })) {
        controller.abort(new Error("enough"));
      }
    })();
    await expect(aborted).rejects.toThrow("enough");
    expect(choosing.open).toBe(0);
    expect(ahead.backend.memoryBytes()).toBe(bytes);
  });

  test("sampling, a penalty, logprobs and who does not want it choose on the host as before", async () => {
    choosing.chosen = 0;
    const others = [{ temperature: 0.8, seed: 4 }, { repetitionPenalty: 1.3 }, { logprobs: true }, { ahead: false }];
    for (const options of others) {
      const [a, b] = await Promise.all(
        [plain, ahead].map((model) => collect(generate(model, prompt, { ...options, maxTokens: 6, stopIds: [] }))),
      );
      expect(b.tokenIds).toEqual(a.tokenIds);
    }
    expect(choosing.chosen).toBe(0);
  });
});
