// Plain JavaScript because scripts/ runs it under Node without a build; types and descriptions in installPacked.d.mts.
import { execFileSync } from "node:child_process";
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  symlinkSync,
} from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

const root = fileURLToPath(new URL("../../", import.meta.url));
const npm = process.platform === "win32" ? "npm.cmd" : "npm";

export function unpackPacked(folder) {
  mkdirSync(dirname(folder), { recursive: true });
  const scratch = mkdtempSync(`${folder}-`);
  try {
    execFileSync(npm, ["pack", "--ignore-scripts", "--silent", "--pack-destination", scratch], { cwd: root });
    const [tarball] = readdirSync(scratch).filter((name) => name.endsWith(".tgz"));
    execFileSync("tar", ["-xzf", join(scratch, tarball), "-C", scratch]);
    renameSync(join(scratch, "package"), folder);
  } finally {
    rmSync(scratch, { recursive: true, force: true });
  }
}

export function installPacked(folder) {
  if (existsSync(folder)) return;
  mkdirSync(dirname(folder), { recursive: true });
  const scratch = mkdtempSync(`${folder}-`);
  try {
    const modules = join(scratch, "node_modules");
    unpackPacked(join(modules, "rarefy"));
    const { dependencies, peerDependencies } = JSON.parse(readFileSync(join(root, "package.json"), "utf8"));
    for (const name of Object.keys({ ...dependencies, ...peerDependencies })) {
      const source = join(root, "node_modules", name);
      if (!existsSync(source)) continue;
      mkdirSync(dirname(join(modules, name)), { recursive: true });
      symlinkSync(source, join(modules, name), "junction");
    }
    renameSync(scratch, folder);
  } catch (error) {
    rmSync(scratch, { recursive: true, force: true });
    if (!existsSync(folder)) throw error;
  }
}
