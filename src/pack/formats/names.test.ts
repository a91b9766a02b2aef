import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { describe, expect, it } from "vitest";

const root = fileURLToPath(new URL("../../..", import.meta.url));

/** An id of a format taken apart as text, or codes of formats compared by their order. */
const taken = [
  /\b(?:id|format|formatId|structure|packed|weights)\)?\.(?:startsWith|endsWith|lastIndexOf|indexOf|split|slice|substring|match|replace)\(.*/g,
  /\/\S*\b(?:bitmask|2:4|csr|tiled-csl|block)\b\S*\/\w*\.test\(.*/g,
  /`\$\{structure\}-.*/g,
  /\b(?:[fF]ormat|structure)(?:[A-Z]\w*)? (?:<|>|<=|>=) .*/g,
  /(?<![<>])(?:<|>|<=|>=) (?:format|structure)[A-Z]\w*/g,
];
const taking = (text: string) => taken.flatMap((pattern) => text.match(pattern) ?? []);

describe("ids of weight formats", () => {
  it("are never taken apart, nor their codes compared by order", () => {
    const found: string[] = [];
    const files = ["src/pack", "src/model", "src/kernels", "test/contract", "test/model"].flatMap((folder) =>
      readdirSync(join(root, folder), { recursive: true, encoding: "utf8" }).map((file) => join(folder, file)),
    );
    for (const file of files) {
      if (!file.endsWith(".ts") || file.endsWith("names.test.ts")) continue;
      for (const line of taking(readFileSync(join(root, file), "utf8"))) found.push(`${file}: ${line}`);
    }
    expect(files.length).toBeGreaterThan(100);
    expect(found).toEqual([]);
  });

  it.each([
    'format.startsWith("2:4") ? inPairs : anywhere',
    `isSparse(id) && id.endsWith('-q8')`,
    'const structure = format.slice(0, format.lastIndexOf("-"));',
    "/^(bitmask|2:4)-/.test(format)",
    "else if (format <= formatBitmaskQ4) unpack();",
    "if (packed >= formatBitmaskBf16) return;",
    `format === \`\${structure}-q8\``,
  ])("the rule finds %s", (line) => {
    expect(taking(line)).not.toEqual([]);
  });
});
