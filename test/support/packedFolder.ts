import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

/** Before all tests of a run: names the folder in which the first test that needs the packed package installs it. */
export default function setup() {
  const folder = mkdtempSync(join(tmpdir(), "rarefy-packed-"));
  process.env.RAREFY_TEST_PACKED = join(folder, "app");
  return () => rmSync(folder, { recursive: true, force: true });
}
