// Preloaded (node --require): counts every change that a process makes to the file system, and ends it by signal 9 at the
// KILL_AT-th: before it, after it, or, where it is a write, in its middle (KILL_MODE). KILL_COUNT names a file for the count.
const fs = require("node:fs");
const fsp = require("node:fs/promises");
const { syncBuiltinESMExports } = require("node:module");
const { isMainThread } = require("node:worker_threads");

const at = Number(process.env.KILL_AT ?? -1);
const mode = process.env.KILL_MODE ?? "before";
let count = 0;

function die() {
  process.kill(process.pid, "SIGKILL");
  for (;;);
}

/** Replaces a function that changes files by one that is counted. @param isWrite its first argument is the bytes */
function counted(object, name, isWrite = false) {
  const original = object[name];
  object[name] = async function (...args) {
    const chosen = ++count === at;
    if (chosen && mode === "before") die();
    if (chosen && mode === "middle" && isWrite && args[0]?.byteLength > 1) {
      await original.call(this, args[0].subarray(0, args[0].byteLength >> 1));
      die();
    }
    const result = await original.apply(this, args);
    if (chosen) die();
    return result;
  };
}

if (isMainThread) {
  for (const name of ["rename", "rm", "rmdir", "mkdir", "link", "copyFile", "symlink", "appendFile"])
    counted(fsp, name);
  const open = fsp.open;
  let handles = false;
  fsp.open = async (path, flags, ...rest) => {
    if (flags !== undefined && flags !== "r" && ++count === at && mode === "before") die();
    const handle = await open(path, flags, ...rest);
    if (!handles) {
      handles = true;
      const prototype = Object.getPrototypeOf(handle);
      for (const name of ["write", "appendFile"]) counted(prototype, name, true);
      for (const name of ["sync", "truncate", "writeFile"]) counted(prototype, name);
    }
    return handle;
  };
  syncBuiltinESMExports();
  process.on("exit", () => {
    if (process.env.KILL_COUNT) fs.writeFileSync(process.env.KILL_COUNT, String(count));
  });
}
