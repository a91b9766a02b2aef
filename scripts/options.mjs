// The options of the scripts of this repository, read in one way.
import { readFileSync } from "node:fs";
import { basename } from "node:path";
import { parseArgs } from "node:util";

/**
 * What the command line of a script says, as `parseArgs` reads it. With --help it prints the comment that the script begins with and
 * its options, and ends; what the script does not know ends it with a line and exit code 2.
 * @param config of `parseArgs`
 * @param script the file whose comment is printed; default: the one that runs
 */
export function readOptions(config = {}, script = process.argv[1]) {
  const options = { ...config.options, help: { type: "boolean", short: "h", default: false } };
  let read;
  try {
    read = parseArgs({ ...config, options });
  } catch (error) {
    // Behind its first sentence parseArgs explains how to pass what looks like an option.
    const [problem] = error.message.split(/\.? To specify|\. This command/);
    console.error(`${basename(script)}: ${problem}; --help says what there is`);
    process.exit(2);
  }
  const { help, ...values } = read.values;
  if (help) {
    console.log(usage(readFileSync(script, "utf8"), config.options ?? {}));
    process.exit(0);
  }
  return { ...read, values };
}

/** @param source of the script */
function usage(source, options) {
  const [comment] = /^(?:\/\/.*\n)+|^\/\*\*[\s\S]*?\*\//.exec(source) ?? [""];
  const text = comment.replace(/^(?:\/\/|\/\*\*| \*\/| \*) ?/gm, "").trim();
  const lines = Object.entries(options).map(([name, { type, default: value }]) => {
    const shown = value === undefined || value === false || value === "" ? "" : `   default ${value}`;
    return `  --${name}${type === "string" ? " VALUE" : ""}${shown}`;
  });
  return [text, ...(lines.length > 0 ? ["", "Options:", ...lines] : [])].join("\n");
}
