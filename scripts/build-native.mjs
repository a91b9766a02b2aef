// Compiles the native kernels of src/kernels/native.
//   node scripts/build-native.mjs              with the C compiler of this machine (CC, or cc), into build/native.node, which the clone
//                                              then uses; does nothing where there is none or nothing has changed
//   node scripts/build-native.mjs --prebuilds  with the zig of the version below (ZIG, or zig), every file of prebuilds/, which is what
//                                              the package ships; zig is on PyPI as "ziglang"
//   node scripts/build-native.mjs --platform darwin-arm64 --out FILE    the same for one platform, also for those of which nothing is shipped
import { execFileSync } from "node:child_process";
import { createHash } from "node:crypto";
import { existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { readOptions } from "./options.mjs";

/** The compiler of the files in prebuilds/: another version writes other bytes. */
export const zigVersion = "0.17.1";

// A shared library for musl that needs nothing loads beside glibc as well: what it takes from the C library, Node.js has.
const linux = { linking: ["-shared", "-s"], foreign: ["-nostdlib", "-Wl,--build-id=none"] };
const mac = { linking: ["-dynamiclib", "-undefined", "dynamic_lookup", "-Wl,-x"], foreign: [] };
/** What kernels can be compiled for: the target's name for zig, the instructions, flags of the last call, and more of them in zig's. */
export const platforms = {
  "linux-x64": { target: "x86_64-linux-musl", architecture: "x64", ...linux },
  "linux-arm64": { target: "aarch64-linux-musl", architecture: "arm64", ...linux },
  "darwin-arm64": { target: "aarch64-macos", architecture: "arm64", ...mac },
};

/** Platforms of which prebuilds/ has a file: those on which the tests have run. */
export const prebuilds = ["linux-x64", "linux-arm64"];

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
/** Sources and flags of the instruction set of each set of kernels; flags in zig's spelling where it has one of its own. */
const sets = {
  x64: {
    avx2: { isa: avx2, sources: ["set", "attention", "rows"] },
    avxvnni: { isa: [...avx2, "-mavxvnni"], sources: ["set"] },
    avx512: { isa: avx512, sources: ["set", "narrow", "attention", "rows"] },
    amx: { isa: [...avx512, "-mamx-tile", "-mamx-int8"], sources: ["set", "narrow"] },
  },
  arm64: {
    neon: { isa: ["-march=armv8-a"], zig: ["-mcpu=generic"], sources: ["set"] },
    dotprod: { isa: ["-march=armv8.2-a+dotprod"], zig: ["-mcpu=generic+dotprod"], sources: ["set"] },
    i8mm: { isa: ["-march=armv8.2-a+dotprod+i8mm"], zig: ["-mcpu=generic+dotprod+i8mm"], sources: ["set"] },
  },
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

/** @param compiler words of a C compiler @param spelling of the flags, "isa" or "zig" @param out file @param more flags of the last call */
function compile(compiler, spelling, platform, out, more = []) {
  const { architecture, linking } = platforms[platform];
  const scratch = mkdtempSync(join(tmpdir(), "rarefy-native-"));
  const [command, ...words] = compiler;
  const call = (...given) =>
    execFileSync(command, [...words, ...given], { cwd: folder, stdio: ["ignore", "pipe", "pipe"] });
  try {
    const objects = Object.entries(sets[architecture]).flatMap(([set, { isa, sources, ...other }]) =>
      [[], ["-DRAREFY_ROUNDS_TWICE"]].flatMap((rounding) =>
        sources.map((name) => {
          const object = join(scratch, `${name}-${set}${rounding}.o`);
          call(
            ...flags,
            ...(other[spelling] ?? isa),
            `-DRAREFY_SET=${set}`,
            ...rounding,
            "-c",
            `${name}.c`,
            "-o",
            object,
          );
          return object;
        }),
      ),
    );
    for (const name of ["processor", "pages", "addon"]) {
      const object = join(scratch, `${name}.o`);
      call(...flags, "-isystem", headers, "-c", `${name}.c`, "-o", object);
      objects.push(object);
    }
    mkdirSync(dirname(out), { recursive: true });
    // Whoever has the old file mapped keeps it.
    rmSync(out, { force: true });
    call(...linking, ...more, "-o", out, ...objects);
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

/** Compiles the file of `platform` to `out`. */
export function compilePrebuild(zig, platform, out) {
  const { target, foreign } = platforms[platform];
  compile([...zig, "-target", target, "-g0"], "zig", platform, out, foreign);
}

/** @param files paths by platform */
function buildWithZig(files) {
  const zig = findZig();
  if (zig === undefined) {
    console.error(`no zig ${zigVersion}: pip install ziglang==${zigVersion}, and ZIG=<path of its zig>`);
    process.exit(1);
  }
  for (const [platform, out] of Object.entries(files)) compilePrebuild(zig, platform, out);
}

/** Where the clone's compiler cannot do it, the file in prebuilds/ or WebAssembly does. */
function buildLocal() {
  const platform = `${process.platform}-${process.arch}`;
  if (!Object.hasOwn(platforms, platform)) return;
  const hash = createHash("sha256");
  const names = readdirSync(folder).filter((name) => /\.[ch]$/.test(name));
  const sources = [...names.map((name) => join(folder, name)), join(root, "src/kernels/program/generated/records.h")];
  for (const path of [...sources, fileURLToPath(import.meta.url)]) hash.update(readFileSync(path));
  const stamp = hash.digest("hex");
  const stampFile = `${local}.sources`;
  if (existsSync(local) && existsSync(stampFile) && readFileSync(stampFile, "utf8") === stamp) return;
  try {
    compile((process.env.CC ?? "cc").split(" "), "isa", platform, local);
    writeFileSync(stampFile, stamp);
  } catch (error) {
    rmSync(local, { force: true });
    const said = error.code === "ENOENT" ? "there is no C compiler" : `${error.stderr ?? error.message}`.trim();
    const instead = prebuilds.includes(platform) ? "the file in prebuilds/ is used" : "WebAssembly does their work";
    console.error(`native kernels: not compiled here (${said}); ${instead}`);
  }
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const { values } = readOptions({
    options: { prebuilds: { type: "boolean" }, platform: { type: "string" }, out: { type: "string" } },
  });
  const { platform, out } = values;
  if (values.prebuilds) {
    buildWithZig(Object.fromEntries(prebuilds.map((name) => [name, join(root, `prebuilds/${name}.node`)])));
  } else if (platform === undefined && out === undefined) buildLocal();
  else if (out !== undefined && Object.hasOwn(platforms, platform ?? "")) buildWithZig({ [platform]: resolve(out) });
  else {
    console.error(`build-native.mjs: expected --platform (${Object.keys(platforms).join(", ")}) and --out FILE`);
    process.exit(2);
  }
}
