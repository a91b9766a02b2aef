import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { FormatError } from "../core/index.js";
import { parseJson, readJsonFile } from "./json.js";
import { memoryFiles } from "./memory.js";
import { sha256Hex } from "./sha256.js";

const utf8 = (text: string) => new TextEncoder().encode(text);
const parse = (text: string) => parseJson(utf8(text), "f.json");

describe("JSON", () => {
  it("parses any value as JSON.parse does", () => {
    fc.assert(
      fc.property(fc.jsonValue(), fc.nat(3), (value, indent) => {
        const text = JSON.stringify(value, undefined, indent);
        expect(parse(text)).toEqual(JSON.parse(text));
      }),
      { seed: 5, numRuns: 500 },
    );
  });

  it("finds duplicate keys at any depth, but not in values or other objects", () => {
    expect(() => parse('{"a":[{"b":1},{"c":{"d":1,"e":2,"d":3}}]}')).toThrow(/f.json: d: the key occurs twice/);
    expect(() => parse('{"a\\"":1,"a\\u0022":2}')).toThrow(/twice/);
    expect(parse('{"a":{"a":["a","a","{:\\"a\\":1"]},"b":{"a":1}}')).toEqual({
      a: { a: ["a", "a", '{:"a":1'] },
      b: { a: 1 },
    });
  });

  it("keeps __proto__ a plain key", () => {
    const value = parse('{"__proto__":{"polluted":1}}') as Record<string, unknown>;
    expect(Object.keys(value)).toEqual(["__proto__"]);
    expect(value.polluted).toBeUndefined();
  });

  it.each(["", "{", "[1,]", "nul", '"\n"', "\uFEFF{}", "[".repeat(200_000)])("refuses %j", (text) => {
    expect(() => parse(text)).toThrow(FormatError);
  });

  it("reads shared memory", () => {
    const shared = new Uint8Array(new SharedArrayBuffer(2));
    shared.set(utf8("{}"));
    expect(parseJson(shared, "f")).toEqual({});
  });

  it("refuses files above the limit", async () => {
    const files = memoryFiles("m", new Map([["a.json", utf8("[1,2,3]")]]));
    expect(await readJsonFile(files, "a.json", 7)).toEqual([1, 2, 3]);
    await expect(readJsonFile(files, "a.json", 6)).rejects.toThrow(/m\/a.json: 7 bytes; expected at most 6/);
    expect(await readJsonFile(files, "b.json")).toBeUndefined();
  });
});

it("hashes bytes, text and shared memory", async () => {
  const abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
  expect(await sha256Hex("abc")).toBe(abc);
  expect(await sha256Hex(utf8("xabc").subarray(1))).toBe(abc);
  const shared = new Uint8Array(new SharedArrayBuffer(3));
  shared.set(utf8("abc"));
  expect(await sha256Hex(shared)).toBe(abc);
});
