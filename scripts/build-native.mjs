// Compiles the native kernels of src/kernels/native.
//   node scripts/build-native.mjs              with the C compiler of this machine (CC, or cc), into build/native.node, which the clone
//                                              then uses; does nothing where there is none or nothing has changed
//   node scripts/build-native.mjs --prebuilds  with the zig of the version below (ZIG, or zig), every file of prebuilds/, which is what
//                                              the package ships; zig is on PyPI as "ziglang"
import { execFileSync } from "node:child_process";
import { createHash } from "node:crypto";
import { existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { readOptions } from "./options.mjs";

/** The compiler of the files in prebuilds/: another version writes other bytes. */
export const zigVersion = "0.17.1";

/** One file a platform. A shared library for musl that needs nothing loads beside glibc as well. */
export const prebuilds = { "linux-x64": "x86_64-linux-musl" };

const root = fileURLToPath(new URL("..", import.meta.url));
const folder = join(root, "src/kernels/native");
const headers = join(root, "node_modules/node-api-headers/include");
const local = join(root, "build/native.node");

const avx2 = ["-mavx2", "-mfma", "-mbmi2", "-mpopcnt"];
const avx512 = [
  ...avx2,
  ..."f dq bw vl vbmi vbmi2 vnni".split(" ").map((part) => `-mavx512${part}`),
  "-mprefer-vector-width=512",
];
/** Sources and flags of the instruction set of each set of kernels. */
const sets = {
  avx2: { isa: avx2, sources: ["set", "attention"] },
  avxvnni: { isa: [...avx2, "-mavxvnni"], sources: ["set"] },
  avx512: { isa: avx512, sources: ["set", "narrow", "attention"] },
  amx: { isa: [...avx512, "-mamx-tile", "-mamx-int8"], sources: ["set", "narrow"] },
};

// Products are added with one rounding where the source says so (and with two all over in the second form of every set), so that every compiler gives the same bits.
const flags = [
  "-std=c11",
  "-O3",
  "-fPIC",
  "-fvisibility=hidden",
  "-ffp-contract=off",
  "-fno-math-errno",
  "-Wall",
  "-Wextra",
  // Headers hold kernels that not every file takes.
  "-Wno-unused-function",
];

/** @param compiler words of a C compiler @param target file @param linking further flags of the last call */
export function compile(compiler, target, linking = []) {
  const scratch = mkdtempSync(join(tmpdir(), "rarefy-native-"));
  const [command, ...words] = compiler;
  const call = (...more) =>
    execFileSync(command, [...words, ...more], { cwd: folder, stdio: ["ignore", "pipe", "pipe"] });
  try {
    const objects = Object.entries(sets).flatMap(([set, { isa, sources }]) =>
      [[], ["-DRAREFY_ROUNDS_TWICE"]].flatMap((rounding) =>
        sources.map((name) => {
          const object = join(scratch, `${name}-${set}${rounding}.o`);
          call(...flags, ...isa, `-DRAREFY_SET=${set}`, ...rounding, "-c", `${name}.c`, "-o", object);
          return object;
        }),
      ),
    );
    for (const name of ["processor", "pages", "addon"]) {
      const object = join(scratch, `${name}.o`);
      call(...flags, "-isystem", headers, "-c", `${name}.c`, "-o", object);
      objects.push(object);
    }
    mkdirSync(dirname(target), { recursive: true });
    // Whoever has the old file mapped keeps it.
    rmSync(target, { force: true });
    call("-shared", "-s", ...linking, "-o", target, ...objects);
  } finally {
    rmSync(scratch, { recursive: true });
  }
}

/** The words that run zig's C compiler, or undefined where the pinned version is not at hand. */
export function findZig() {
  const zig = process.env.ZIG ?? "zig";
  try {
    const version = execFileSync(zig, ["version"], { encoding: "utf8" }).trim();
    return version === zigVersion ? [zig, "cc"] : undefined;
  } catch {
    return undefined;
  }
}

/** Compiles the file of `platform` to `target`. */
export function compilePrebuild(zig, platform, target) {
  // What it takes from the C library, Node.js has.
  compile([...zig, "-target", prebuilds[platform], "-g0"], target, ["-nostdlib", "-Wl,--build-id=none"]);
}

function buildPrebuilds() {
  const zig = findZig();
  if (zig === undefined) {
    console.error(`no zig ${zigVersion}: pip install ziglang==${zigVersion}, and ZIG=<path of its zig>`);
    process.exit(1);
  }
  for (const platform of Object.keys(prebuilds))
    compilePrebuild(zig, platform, join(root, `prebuilds/${platform}.node`));
}

/** Where the clone's compiler cannot do it, the file in prebuilds/ or WebAssembly does. */
function buildLocal() {
  if (process.platform !== "linux" || process.arch !== "x64") return;
  const hash = createHash("sha256");
  const names = readdirSync(folder).filter((name) => /\.[ch]$/.test(name));
  const sources = [...names.map((name) => join(folder, name)), join(root, "src/kernels/program/generated/records.h")];
  for (const path of [...sources, fileURLToPath(import.meta.url)]) hash.update(readFileSync(path));
  const stamp = hash.digest("hex");
  const stampFile = `${local}.sources`;
  if (existsSync(local) && existsSync(stampFile) && readFileSync(stampFile, "utf8") === stamp) return;
  try {
    compile((process.env.CC ?? "cc").split(" "), local);
    writeFileSync(stampFile, stamp);
  } catch (error) {
    rmSync(local, { force: true });
    const said = error.code === "ENOENT" ? "there is no C compiler" : `${error.stderr ?? error.message}`.trim();
    console.error(`native kernels: not compiled here (${said}); the file in prebuilds/ is used`);
  }
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const { values } = readOptions({ options: { prebuilds: { type: "boolean" } } });
  if (values.prebuilds) buildPrebuilds();
  else buildLocal();
}
