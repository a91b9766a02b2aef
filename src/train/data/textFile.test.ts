import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, expect, test } from "vitest";
import { readText } from "../../io/index.node.js";
import { readTrainingText } from "./textFile.node.js";

const directory = mkdtempSync(join(tmpdir(), "rarefy-text-"));
afterAll(() => rmSync(directory, { recursive: true, force: true }));

const text = "Grüße\n<|endoftext|>\nzwei\n";
/** `printf "$text" | xz -9` */
const xz = Buffer.from(
  "/Td6WFoAAATm1rRGAgAhARwAAAAQz1jMAQAaR3LDvMOfZQo8fGVuZG9mdGV4dHw+Cnp3ZWkKAACoHVT2ckd3HwABMxv3GYheH7bzfQEAAAAABFla",
  "base64",
);

function file(name: string, bytes: Uint8Array | string): string {
  const path = join(directory, name);
  writeFileSync(path, bytes);
  return path;
}

test("plain and xz texts are the same", async () => {
  expect(await readTrainingText(file("a.txt", text))).toBe(text);
  expect(await readTrainingText(file("a.txt.xz", xz))).toBe(text);
});

test("a text of the package is read by its name, as other commands do", async () => {
  expect(await readTrainingText("tiny-6m:eval")).toBe(await readText("tiny-6m:eval"));
});

test.each<[string, string, Uint8Array]>([
  ["not UTF-8", "b.txt", Uint8Array.of(0x61, 0xff, 0x62)],
  ["cut in the middle of a character", "c.txt", Uint8Array.of(0x61, 0xc3)],
  ["not xz", "d.xz", new TextEncoder().encode("plain text, not compressed at all")],
  ["xz that ends early", "e.xz", xz.subarray(0, xz.length - 20)],
])("%s is an error that names the file", async (_name, name, bytes) => {
  await expect(readTrainingText(file(name, bytes))).rejects.toThrow(name);
});

test("a file that is not there", async () => {
  await expect(readTrainingText(join(directory, "none.txt"))).rejects.toThrow(/none\.txt: there is no such file/);
});
