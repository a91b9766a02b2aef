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

export const root = fileURLToPath(new URL("../../", import.meta.url));
const npm = process.platform === "win32" ? "npm.cmd" : "npm";

/**
 * Packs the repository as `npm publish` would and installs the tarball in `folder`, with nothing beside it but the
 * packages that it declares, linked from this checkout: what it forgot to pack or to declare is missing there.
 * @param folder must not be there; whoever comes first makes it, whole or not at all
 */
export function installPacked(folder: string): void {
  if (existsSync(folder)) return;
  mkdirSync(dirname(folder), { recursive: true });
  const scratch = mkdtempSync(`${folder}-`);
  try {
    const modules = join(scratch, "node_modules");
    mkdirSync(modules);
    execFileSync(npm, ["pack", "--ignore-scripts", "--silent", "--pack-destination", scratch], { cwd: root });
    const [tarball] = readdirSync(scratch).filter((name) => name.endsWith(".tgz"));
    execFileSync("tar", ["-xzf", join(scratch, tarball), "-C", modules]);
    renameSync(join(modules, "package"), join(modules, "rarefy"));
    rmSync(join(scratch, tarball));
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
