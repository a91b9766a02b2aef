import { readdirSync, readFileSync } from "node:fs";
import { expect, test } from "vitest";
import * as codes from "../../src/kernels/cpu/codes.js";
import { forms } from "../../src/kernels/cpu/forms.js";
import type { Kernel } from "../../src/kernels/internal.js";
import { activationKernels } from "../../src/train/engine/device/activationKernels.js";
import { divergenceKernels } from "../../src/train/engine/device/divergenceKernels.js";
import * as elements from "../../src/train/engine/device/elementKernels.js";
import { gemm, gemmByRuns } from "../../src/train/engine/device/gemm.js";
import * as matching from "../../src/train/engine/device/matchingKernels.js";
import * as mixtures from "../../src/train/engine/device/mixtureKernels.js";
import { normKernels } from "../../src/train/engine/device/normKernels.js";
import * as projections from "../../src/train/engine/device/projectionKernels.js";
import * as rows from "../../src/train/engine/device/rowKernels.js";
import * as updates from "../../src/train/engine/device/updateKernels.js";

const isKernel = (value: unknown): value is Kernel => typeof value === "object" && value !== null && "code" in value;

/** Every kernel that a schedule or a resident run records. */
const kernels: Kernel[] = [
  ...[elements, rows, mixtures, matching, updates, projections].flatMap((module) =>
    Object.values(module).filter(isKernel),
  ),
  ...Object.values(divergenceKernels),
  ...Object.values(normKernels).flatMap((norm) => Object.values(norm).filter(isKernel)),
  ...Object.values(activationKernels).flatMap(({ plain, gated }) => [plain, gated].flatMap(Object.values)),
  ...(["nt", "nn", "tn"] as const).flatMap((layout) =>
    ([32, 64] as const).flatMap((columns) => [gemm(layout, columns), gemmByRuns(layout, columns)]),
  ),
];

const folder = new URL("../../src/kernels/wasm/assembly/training/", import.meta.url);
const source = readdirSync(folder)
  .map((name) => readFileSync(new URL(name, folder), "utf8"))
  .join("\n");

/** Fields of the class of a step behind those that all begin with, as "name type". */
function fieldsOf(code: number): string[] {
  const [name] = Object.entries(codes).find(([, value]) => value === code)!;
  const [, body] = new RegExp(`class ${name.slice("step".length)} extends Step \\{([^}]*)\\}`).exec(source)!;
  return Array.from(body.matchAll(/^ {2}(\w+): (\w+);$/gm), ([, field, type]) => `${field} ${type}`);
}

const byName = (one: Kernel) => one.name;

test("every kernel has a form for a CPU, and every form a kernel", () => {
  expect(kernels.length).toBeGreaterThan(60);
  expect([...forms.keys()].sort()).toEqual(kernels.map(byName).sort());
});

test("forms differ where kernels do", () => {
  const keys = [...forms].map(([name, { code, variant = 0 }]) => [
    `${code} ${variant}`,
    // A tile's width is a GPU's.
    name.replace(/ (32|64)$/, ""),
  ]);
  const names = new Map(keys as [string, string][]);
  for (const [key, name] of keys) expect(names.get(key)).toBe(name);
});

test.each(kernels.map((one) => [one.name, one] as const))(
  "%s: a step reads its parameters and buffers in the order in which they are written",
  (name, { params, buffers }) => {
    const isParameter = (field: string) => Object.hasOwn(params, field);
    const expected = [
      ...Object.entries(params).map(([field, type]) => `${field} ${type}`),
      ...Object.keys(buffers).map((field) => `${isParameter(field) ? `${field}Buffer` : field} usize`),
    ];
    // The buffer of runs is read by products by runs alone; their number is a parameter of all.
    const found = fieldsOf(forms.get(name)!.code).map((field) => field.replace("runCount ", "runs "));
    if (name.startsWith("gemm")) {
      const own = expected.map((field) => field.replace("runsBuffer", "runs"));
      expect(found.slice(0, own.length)).toEqual(own);
    } else expect(found).toEqual(expected);
  },
);
