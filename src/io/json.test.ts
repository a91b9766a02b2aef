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

  it("skips a byte order mark, and says what UTF-16 is", () => {
    expect(parse('\uFEFF{"a":1}')).toEqual({ a: 1 });
    const utf16 = new Uint8Array(new Uint16Array(Array.from('\uFEFF{"a":1}', (c) => c.charCodeAt(0))).buffer);
    expect(() => parseJson(utf16, "f.json")).toThrow(/f.json: UTF-16 text .*Save it as UTF-8/);
  });

  it("has a limit on depth and on values, not on what stands in texts", () => {
    const nested = (levels: number) => "[".repeat(levels) + "]".repeat(levels);
    expect(parse(nested(64))).toEqual(JSON.parse(nested(64)));
    expect(() => parse(nested(65))).toThrow(/nested more than 64 levels deep, at byte 64/);
    expect(parse(JSON.stringify({ a: `${nested(100)}\\"${"[,".repeat(100)}` }))).toHaveProperty("a");
    expect(() => parse(`[${"{},".repeat(600_000)}{}]`)).toThrow(/more than 1000000 values/);
    expect(() => parseJson(utf8("[1,2,3]"), "f", { values: 2 })).toThrow(/more than 2 values/);
  });

  it.each([
    [
      "a Git LFS pointer",
      `version https://git-lfs.github.com/spec/v1\noid sha256:${"0".repeat(64)}\nsize 1\n`,
      /LFS pointer.*git lfs pull/,
    ],
    ["a web page", "<!doctype html><html></html>", /web page/],
  ])("names %s in place of a file", (_name, text, message) => {
    expect(() => parse(text)).toThrow(message);
  });

  it("keeps __proto__ a plain key", () => {
    const value = parse('{"__proto__":{"polluted":1}}') as Record<string, unknown>;
    expect(Object.keys(value)).toEqual(["__proto__"]);
    expect(value.polluted).toBeUndefined();
  });

  it.each(["", "{", "[1,]", "nul", '"\n"', "[".repeat(200_000)])("refuses %j", (text) => {
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

  it("lets vocabularies be larger than configs, whoever reads them", async () => {
    const merges = utf8(`[${'["a","b"],'.repeat(400_000)}0]`);
    const files = memoryFiles(
      "m",
      new Map(["tokenizer.json", "vocab.json", "config.json"].map((name) => [name, merges])),
    );
    for (const name of ["tokenizer.json", "vocab.json"]) expect(await readJsonFile(files, name)).toHaveLength(400_001);
    await expect(readJsonFile(files, "config.json")).rejects.toThrow(
      /m\/config.json: JSON of more than 1000000 values/,
    );
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
