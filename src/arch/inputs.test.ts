import { readdirSync, readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { describe, expect, it } from "vitest";
import { inputsOf, placesOf } from "./inputs.js";
import { readModelSpec } from "./readSpec.js";

const goldens = fileURLToPath(new URL("../../test/golden/arch/", import.meta.url));
const blockOf = (name: string, change: object = {}) =>
  readModelSpec({ ...JSON.parse(readFileSync(`${goldens}${name}/config.json`, "utf8")), ...change }, name).blocks[0];
const inWords = (block: Parameters<typeof inputsOf>[0]) =>
  inputsOf(block).map(({ readers, routers, expert, maker }) => ({
    read: readers.map(({ map }) => map.id),
    ...(routers.length > 0 && { routers: routers.length }),
    ...(expert !== undefined && { expert }),
    made:
      maker && ("norm" in maker ? maker.norm.weight.tensor : maker.map.id + (maker.ofValueHeads ? " by heads" : "")),
  }));

describe("what linear maps read", () => {
  it("comes from norms, values and the gated half of a Llama", () => {
    expect(inWords(blockOf("llama"))).toEqual([
      { read: ["q_proj", "k_proj", "v_proj"], made: "model.layers.0.input_layernorm.weight" },
      { read: ["o_proj"], made: "v_proj by heads" },
      { read: ["gate_proj", "up_proj"], made: "model.layers.0.post_attention_layernorm.weight" },
      { read: ["down_proj"], made: "up_proj" },
    ]);
  });

  it("is one norm for a router and all its experts, and each expert's own behind them", () => {
    const found = inWords(blockOf("mixtral"));
    const experts = placesOf(blockOf("mixtral")).filter(({ map }) => map.role === "down_proj");
    expect(found).toHaveLength(3 + experts.length);
    expect(found[2]).toMatchObject({ routers: 1, made: "model.layers.0.post_attention_layernorm.weight" });
    expect(found[2].read).toHaveLength(2 * experts.length);
    expect(found.slice(3)).toEqual(
      experts.map((_, e) => ({
        read: [`experts.${e}.down_proj`],
        expert: e,
        made: `experts.${e}.up_proj`,
      })),
    );
  });

  it.each(readdirSync(goldens))("names every map of %s once, in attention or in the MLP", (name) => {
    const block = blockOf(name);
    const ids = placesOf(block).map(({ map }) => map.id);
    expect(new Set(ids).size).toBe(ids.length);
    expect(
      inputsOf(block)
        .flatMap(({ readers }) => readers.map(({ map }) => map.id))
        .sort(),
    ).toEqual(ids.sort());
    const modules = new Set(placesOf(block).map(({ module }) => module));
    // Thin products and convolutions are no maps that methods work on.
    expect([...modules].sort()).toEqual(name === "terraformer-convolutional" ? ["mlp"] : ["mlp", "self_attn"]);
  });
});
