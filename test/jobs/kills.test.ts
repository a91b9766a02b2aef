import { spawnSync } from "node:child_process";
import { beforeAll, expect, test } from "vitest";
import { ensureBuilt, root } from "../support/rarefy.js";

beforeAll(ensureBuilt);

/** The short form of scripts/check-kills.mjs, which goes over all jobs. */
test.skipIf(process.platform === "win32").each(["prune over", "export gguf"])(
  "killed, twice at once, on a full and a read-only disk: %s",
  (name) => {
    const args = ["scripts/check-kills.mjs", "--only", name, "--kills", "4"];
    const { status, stdout, stderr } = spawnSync(process.execPath, args, { cwd: root, encoding: "utf8" });
    expect({ status, stderr, failures: stdout.match(/^FAILED.*$/gm) }).toEqual({
      status: 0,
      stderr: "",
      failures: null,
    });
    expect(stdout).toMatch(/of 4 runs 4 ended in the same bytes, 4 left nothing behind/);
  },
);
