import { existsSync } from "node:fs";
import { createRequire } from "node:module";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import * as layout from "../program/layout.js";
import { describeRecord, type OperationName, operations } from "../program/records.js";
import type { NativeKernels, NativeSet } from "./native.js";

const names: Readonly<Record<NativeSet, string>> = {
  amx: "AVX-512 with AMX",
  avx512: "AVX-512",
  avxvnni: "AVX-VNNI",
  avx2: "AVX2",
  i8mm: "NEON with i8mm",
  dotprod: "NEON with dotprod",
  neon: "NEON",
};

/** All sets, of each processor the best one first. */
export const nativeSets = Object.keys(names) as readonly NativeSet[];

/** Kernels, and the records that they read. */
const kernelRecords: readonly { kernel: number; record: OperationName }[] = [
  { kernel: layout.nativeMatvec, record: "matvec" },
  { kernel: layout.nativePrepare, record: "matmul" },
  { kernel: layout.nativeTiles, record: "matmul" },
  { kernel: layout.nativeAttention, record: "attention" },
  { kernel: layout.nativeRows, record: "rowsMatvec" },
];

/** Which form of the record of native/product.h the kernels that train write; a test holds the fields of both against each other. */
export const productRecord = "1";

/** What native/addon.c gives for a set that the machine runs. */
interface Addon {
  set: NativeSet;
  /** Numbers of layout.ts, and records in the words of `describeRecord`, that it was compiled with. */
  constants: Readonly<Record<string, number>>;
  records: Readonly<Record<string, string>>;
  attach: NativeKernels["attach"];
  /** Not in files of before there was one. */
  useLargePages?: NativeKernels["useLargePages"];
}

// Not `new URL("../../../", import.meta.url)`: Turbopack (Next.js) takes that for a file to bundle, and the build fails.
const root = join(dirname(fileURLToPath(import.meta.url)), "../../..");
/** What the clone's own compiler made comes before what the package ships. */
const files = ["build/native.node", `prebuilds/${process.platform}-${process.arch}.node`].map((path) =>
  join(root, path),
);

/**
 * The kernels of the first file that fits, or why there are none.
 * @param wanted a set; else what RAREFY_NATIVE says, else the best
 * @param roundsTwice whether the WebAssembly kernels beside them multiply and add with two roundings
 */
export function openNative(
  wanted: boolean | NativeSet | undefined,
  roundsTwice: boolean,
): NativeKernels | { none: string } {
  const asked = typeof wanted === "string" ? wanted : process.env.RAREFY_NATIVE || undefined;
  if (asked === "0" && wanted === undefined) return { none: "RAREFY_NATIVE=0" };
  const set = asked === "0" ? undefined : asked;
  if (set !== undefined && !Object.hasOwn(names, set)) {
    return { none: `RAREFY_NATIVE=${set}; expected 0, ${nativeSets.join(", ")}` };
  }
  const opened = files.filter(existsSync).map((file) => openFile(file, set as NativeSet | undefined, roundsTwice));
  const none = { none: `none for ${process.platform}-${process.arch}` };
  return opened.find((kernels) => "attach" in kernels) ?? opened[0] ?? none;
}

function openFile(file: string, set: NativeSet | undefined, roundsTwice: boolean): NativeKernels | { none: string } {
  let addon: Addon | undefined;
  try {
    addon = createRequire(import.meta.url)(file).open(set, roundsTwice);
  } catch (error) {
    return { none: `they could not be loaded: ${(error as Error).message}` };
  }
  if (addon === undefined) return { none: `this processor lacks ${set === undefined ? "AVX2" : names[set]}` };
  const { constants, records, useLargePages = () => {} } = addon;
  const known = layout as Readonly<Record<string, number>>;
  if (Object.keys(constants).some((name) => constants[name] !== known[name])) {
    return { none: "they were compiled for another version of the package" };
  }
  const fits = ({ record }: { record: OperationName }) =>
    Object.hasOwn(operations, record) && records[record] === describeRecord(record);
  let mask = kernelRecords.filter(fits).reduce((bits, { kernel }) => bits | (1 << kernel), 0);
  if (records.product === productRecord) mask |= 1 << layout.nativeProduct;
  return { file, set: addon.set, roundsTwice, name: names[addon.set], mask, attach: addon.attach, useLargePages };
}
