// Builds the site into site/dist: the API's pages from the sources, then all pages.   npm run site
import { execFileSync } from "node:child_process";
import { existsSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { readOptions } from "../scripts/options.mjs";

readOptions();
const cwd = fileURLToPath(new URL(".", import.meta.url));
const run = (command, ...args) => execFileSync(command, args, { cwd, stdio: "inherit" });
// Of its own package, so that who only uses or tests the library does not install it.
if (!existsSync(new URL("node_modules", import.meta.url))) run("npm", "ci", "--ignore-scripts");
run(process.execPath, "api.mjs");
run(process.execPath, "node_modules/vitepress/bin/vitepress.js", "build");
