import { describe, expect, test } from "vitest";
import { UsageError } from "../core/index.js";
import { exitRules, parseExits } from "./exits/index.js";
import { kvPolicies, parseKv } from "./kv/index.js";
import { type Choosable, parseChoice, usage } from "./parameters.js";
import { attentionPatterns, parseAttention } from "./sight/index.js";
import { parseSparsity, sparsityKinds } from "./sparsity.js";

const patternUsages = [
  "causal",
  "window:size=N,sinks=0",
  "longformer:window=N,global=16",
  "strided:stride=N,split=union",
  "fixed:stride=N,columns=N,split=union",
  "dilated:window=N,dilation=2,global=0,split=union",
  "bigbird:block=64,global=2,window=3,random=3,seed=12345,length=0",
  "quest:budget=2048,page=16,dense=2,group=each,prompts=dense",
  "vertical-slash:vertical=1024,slash=1024,queries=16",
  "block-sparse:blocks=16",
  "minference:budget=1024,queries=16,heads=search",
  "xattention:share=90,stride=8,block=128,sinks=1",
];
const policyUsages = [
  "full",
  "int8",
  "int4",
  "kivi:bits=2,residual=128",
  "recent:budget=N,bits=32",
  "sinks:budget=N,sinks=4,positions=original,bits=32",
  "h2o:budget=N,recent=0,group=sum,bits=32",
  "random:budget=N,seed=1,bits=32",
  "snapkv:budget=2048,window=32,kernel=5,bits=32",
  "pyramidkv:budget=2048,window=32,kernel=5,beta=20,bits=32",
  "pruned",
];
const ruleUsages = [
  "never:from=0,every=0,fill=exact",
  "top:least=0.9,from=0,every=0,fill=exact",
  "gap:least=0.8,from=0,every=0,fill=exact",
  "svm:from=0,every=0,fill=exact",
  "crf:from=0,every=0,fill=exact",
];
const kindUsages = ["dense", "exact", "topk:zeros=N", "blocks:keep=N,of=N", "mass:share=N"];
interface Table {
  what: string;
  /** What a parameter without a default may be. */
  some: number;
  table: Readonly<Record<string, Choosable>>;
  usages: readonly string[];
  parse: (text: string) => { text: string };
}
const tables: Table[] = [
  { what: "an attention pattern", some: 8, table: attentionPatterns, usages: patternUsages, parse: parseAttention },
  { what: "a KV policy", some: 8, table: kvPolicies, usages: policyUsages, parse: parseKv },
  { what: "a rule of early exit", some: 1, table: exitRules, usages: ruleUsages, parse: parseExits },
  { what: "a kind of activation sparsity", some: 1, table: sparsityKinds, usages: kindUsages, parse: parseSparsity },
];

describe.each(tables)("$what", ({ what, some, table, usages, parse }) => {
  test("has these names, parameters and defaults", () => {
    expect(Object.entries(table).map(([name, entry]) => usage(name, entry))).toEqual(usages);
  });

  test("left out is what the default says", () => {
    for (const written of usages) {
      const all = written.replaceAll("=N", `=${some}`);
      const [name, given = ""] = all.split(":");
      const needed =
        written
          .split(":")[1]
          ?.split(",")
          .filter((part) => part.endsWith("=N")) ?? [];
      const short = [name, needed.join(",").replaceAll("=N", `=${some}`)].filter((part) => part !== "").join(":");
      const read = (text: string) => parseChoice(what, table, text).values;
      expect(read(short)).toEqual(read(all));
      expect(
        Object.entries(read(all))
          .map((pair) => pair.join("="))
          .sort(),
      ).toEqual(
        given
          .split(",")
          .filter((part) => part !== "")
          .sort(),
      );
      expect(parse(all).text).toBe(all);
    }
  });

  test.each(["nonsense", "", "constructor", "__proto__", "toString:a=1", "CAUSAL", "full,recent"])(
    "the name %j is refused with those that there are",
    (text) => {
      const refused = () => parse(text);
      expect(refused).toThrow(UsageError);
      expect(refused).toThrow(`is not ${what}; there are ${Object.keys(table).join(", ")}`);
    },
  );

  test("every parameter is held to its bounds, and what was meant is said", () => {
    for (const [name, { parameters }] of Object.entries(table)) {
      const form = usage(name, table[name]);
      const refuses = (given: string, problem: string) => {
        const text = `${name}:${given}`;
        expect(() => parse(text)).toThrow(UsageError);
        expect(() => parse(text)).toThrow(`${what} ${JSON.stringify(text)}: ${problem}`);
        expect(() => parse(text)).toThrow(`write ${form}`);
      };
      refuses("nothing=1", 'there is no parameter "nothing"');
      refuses("__proto__=1", 'there is no parameter "__proto__"');
      refuses("budget", '"budget" is not parameter=value');
      refuses("budget=", '"budget=" is not parameter=value');
      refuses("a=1=2", '"a=1=2" is not parameter=value');
      refuses(",", '"" is not parameter=value');
      for (const [key, rule] of Object.entries(parameters)) {
        if ("oneOf" in rule) {
          refuses(`${key}=perhaps`, `${key} is one of ${rule.oneOf.join(", ")}, not "perhaps"`);
          continue;
        }
        if ("like" in rule) {
          refuses(`${key}=x/y`, `${key} is ${rule.about}, not "x/y"`);
          continue;
        }
        if ("most" in rule) {
          for (const value of ["-1", "1e-3", ".5", "NaN", "Infinity", rule.most + 0.5]) {
            refuses(`${key}=${value}`, `${key} is a number from 0 to ${rule.most}, not "${value}"`);
          }
          continue;
        }
        for (const value of ["-1", "1.5", "1e3", "0x10", "NaN", "Infinity", "9999999999999999", rule.least - 1]) {
          refuses(`${key}=${value}`, `${key} is a whole number from ${rule.least} on, not "${value}"`);
        }
        const value = Math.max(8, rule.least);
        refuses(`${key}=${value},${key}=${value}`, `${key} is given twice`);
      }
      const missing = Object.entries(parameters).find(([, { preset }]) => preset === undefined)?.[0];
      if (missing !== undefined) expect(() => parse(name)).toThrow(`${missing} is missing; write ${form}`);
    }
  });
});

test("spaces around names and values mean nothing", () => {
  const written = " sinks:budget = 8, sinks = 2 ";
  expect(parseChoice("a KV policy", kvPolicies, written).values).toEqual({
    budget: 8,
    sinks: 2,
    positions: "original",
    bits: "32",
  });
});

test("parameters of a policy must fit one another", () => {
  expect(() => parseKv("sinks:budget=4")).toThrow(UsageError);
  expect(() => parseKv("sinks:budget=4")).toThrow("sinks:budget=4,sinks=4 leaves no room for new tokens");
  expect(() => parseKv("h2o:budget=8,recent=9")).toThrow(UsageError);
  expect(() => parseKv("h2o:budget=8,recent=9")).toThrow("keeps more new tokens than fit");
  expect(parseKv("sinks:budget=5").eviction?.budget).toBe(5);
  expect(parseKv("h2o:budget=8,recent=8").eviction?.budget).toBe(8);
  expect(parseKv("full").eviction).toBeUndefined();
  expect(parseKv("h2o:budget=8").codes).toBeUndefined();
  expect(parseKv("h2o:budget=8,bits=4").codes).toEqual({ bits: 4 });
  expect(parseKv("kivi:bits=4").codes).toEqual({ bits: 4, residual: 128 });
  expect(() => parseKv("sinks:budget=9,positions=slots,bits=8")).toThrow(UsageError);
});
