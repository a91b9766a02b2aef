import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { afterAll, expect, test } from "vitest";
import { rarefyInProcess } from "./support/rarefyInProcess.js";

const scratch = mkdtempSync(join(tmpdir(), "rarefy-in-process-"));
afterAll(() => rmSync(scratch, { recursive: true, force: true }));

/** A command line that notes the time at which its last timer fires, after the command has returned. */
const files = {
  "package.json": `{ "type": "module" }`,
  "jobs/internal.js": `export const packageVersion = () => "1.2.3";`,
  "cli/commands/index.js": `export const commands = ["only"];`,
  "cli/cli.js": `export async function runCli(commands, [ms], { stdin, stdout, stderr, version }) {
      let input = "";
      for await (const chunk of stdin) input += chunk;
      stdout.write(commands + " " + version + " " + input);
      stderr.write("left");
      // More of them than those of the test runner that may end meanwhile.
      for (let i = 0; ms && i < 50; i++) setTimeout(() => i === 49 && stderr.write(" nothing"), Number(ms));
      return 3;
    }`,
};
for (const [name, text] of Object.entries(files)) {
  mkdirSync(dirname(join(scratch, name)), { recursive: true });
  writeFileSync(join(scratch, name), text);
}

test("a command in this process has ended when a process of its own would have", async () => {
  const finished = { code: 3, stdout: "only 1.2.3 in", stderr: "left" };
  const main = join(scratch, "cli/main.js");
  expect(await rarefyInProcess(main, [], "in")).toEqual(finished);
  expect(await rarefyInProcess(main, ["200"], "in")).toEqual({ ...finished, stderr: "left nothing" });
});
