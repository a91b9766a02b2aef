import { execFileSync } from "node:child_process";
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import asc from "assemblyscript/asc";
import { describe, expect, it } from "vitest";
import { Random } from "../../core/index.js";
import { encode, encodedWords } from "./encode.js";
import { items, type OperationName, type OperationTable, operations } from "./records.js";

const here = (path: string) => fileURLToPath(new URL(path, import.meta.url));
const accessors = () => readFileSync(here("../wasm/assembly/generated/records.ts"), "utf8");
const header = here("generated/records.h");

const lengths = [3, 2];
const programs = Object.entries(operations).map(([name, table], n) => encoded(name as OperationName, table, n));

/** An operation with random operands and lists of a few items, encoded, with what each reader should find in it. */
function encoded(name: OperationName, { fields, lists = {} }: OperationTable, seed: number) {
  const random = new Random(seed);
  const draw = (kind: string) => {
    if (kind === "flag") return random.uniform() < 0.5;
    if (kind === "f32") return Math.fround(random.normal());
    return Math.floor(random.uniform() * 2 ** 31) - (kind === "i32" ? 2 ** 30 : 0);
  };
  const operands: Record<string, unknown> = {};
  /** Expressions over the record in AssemblyScript and C, and their values. */
  const expected: { script: string; c: string; value: number }[] = [];
  const expectAt = (script: string, c: string, value: unknown) => expected.push({ script, c, value: Number(value) });
  for (const [field, kind] of Object.entries(fields)) {
    operands[field] = draw(kind);
    expectAt(`r.${field}`, `r->${snake(field)}`, operands[field]);
  }
  for (const [l, [list, item]] of Object.entries(lists).entries()) {
    expectAt(`r.${list}Length`, `r->${snake(list)}_length`, lengths[l]);
    operands[list] = Array.from({ length: lengths[l] }, (_, i) => {
      const inC = `rarefy_${snake(name)}_${snake(list)}(r)[${i}]`;
      if (!Object.hasOwn(items, item)) {
        const value = draw(item);
        expectAt(`r.${list}(${i})`, inC, value);
        return value;
      }
      const values: Record<string, unknown> = {};
      for (const [field, kind] of Object.entries(items[item as keyof typeof items])) {
        values[field] = draw(kind);
        expectAt(`r.${list}(${i}).${field}`, `${inC}.${snake(field)}`, values[field]);
      }
      return values;
    });
  }
  const words = new Int32Array(256);
  const end = encode(name, operands as never, words, new Float32Array(words.buffer), 0);
  expect(end).toBe(encodedWords(name, operands as never));
  expect(words.slice(0, 2)).toEqual(Int32Array.of(seed + 1, end - 2));
  return { name, words, expected };
}

function snake(name: string): string {
  return name.replaceAll(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`);
}

describe("records of operations", () => {
  it("are read by AssemblyScript as the host writes them", async () => {
    const classes = programs.map(({ name }) => name[0].toUpperCase() + name.slice(1));
    const probes = programs.flatMap(({ expected }, p) => [
      `export const code${p} = op${classes[p]};`,
      ...expected.map(
        ({ script }, i) =>
          `export function probe${p}_${i}(at: usize): f64 { const r = changetype<${classes[p]}>(at); return <f64>${script}; }`,
      ),
    ]);
    const codes = programs.map((_, p) => `op${classes[p]}`);
    const main = `import { ${[...classes, ...codes].join(", ")} } from "./records";\n${probes.join("\n")}\n`;
    const files: Record<string, string> = { "main.ts": main, "records.ts": accessors() };
    let binary: Uint8Array | undefined;
    const { error, stderr } = await asc.main(["main.ts", "-o", "out.wasm", "--runtime", "stub", "--importMemory"], {
      readFile: (name: string) => files[name] ?? null,
      writeFile: (_name: string, contents: unknown) => {
        binary = contents as Uint8Array;
      },
      listFiles: () => [],
    });
    expect(error, stderr.toString()).toBeNull();
    const memory = new WebAssembly.Memory({ initial: 1 });
    const bytes = binary as Uint8Array<ArrayBuffer>;
    const { instance } = await WebAssembly.instantiate(bytes, { env: { memory, abort: () => {} } });
    const exports = instance.exports as Record<string, WebAssembly.Global & ((at: number) => number)>;
    const at = 4096;
    for (const [p, { name, words, expected }] of programs.entries()) {
      expect(exports[`code${p}`].value, name).toBe(words[0]);
      new Int32Array(memory.buffer, at, words.length).set(words);
      for (const [i, { script, value }] of expected.entries()) {
        expect(exports[`probe${p}_${i}`](at + 8), `${name}: ${script}`).toBe(value);
      }
    }
  });

  it.skipIf(!hasCompiler())("are read by C as the host writes them", () => {
    const folder = mkdtempSync(join(tmpdir(), "rarefy-records-"));
    try {
      const blocks = programs.map(
        ({ name, words, expected }) => `{
  static const int32_t words[] = {${words.join(", ")}};
  const rarefy_${snake(name)} *r = (const void *)(words + 2);
  printf("%d\\n", words[0] == rarefy_op_${snake(name)});
${expected.map(({ c }) => `  printf("%.17g\\n", (double)${c});`).join("\n")}
}`,
      );
      const text = `#include <stdio.h>\n#include "${header}"\nint main(void) {\n${blocks.join("\n")}\nreturn 0;\n}\n`;
      writeFileSync(join(folder, "probe.c"), text);
      execFileSync("cc", ["-std=c11", "-Wall", "-Werror", "-o", join(folder, "probe"), join(folder, "probe.c")]);
      const printed = execFileSync(join(folder, "probe"), { encoding: "utf8" }).trim().split("\n").map(Number);
      expect(printed).toEqual(programs.flatMap(({ expected }) => [1, ...expected.map(({ value }) => value)]));
    } finally {
      rmSync(folder, { recursive: true });
    }
  });

  it("are read by name only", () => {
    const folder = here("../wasm/assembly");
    const raw = readdirSync(folder).flatMap((file) => {
      if (!file.endsWith(".ts")) return [];
      const text = readFileSync(join(folder, file), "utf8");
      // As they were read once: from an address, by an offset.
      const found = text.matchAll(
        /\b(?:load<[uif]32>\((?:a|part|segment), \d+\)|function \w+\((?:a|part|segment): usize).*/g,
      );
      return Array.from(found, ([line]) => `${file}: ${line}`);
    });
    expect(raw).toEqual([]);
  });
});

function hasCompiler(): boolean {
  try {
    execFileSync("cc", ["--version"], { stdio: "ignore" });
    return true;
  } catch {
    return false;
  }
}
