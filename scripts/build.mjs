// Compiles src/ to dist/ with the TypeScript compiler.
//   --if-missing   do nothing when dist/ is already there (npm start, npm run golden)
//   --if-possible  do nothing when the compiler is not installed (a production install of a git dependency)

import { spawnSync } from "node:child_process";
import { existsSync, rmSync } from "node:fs";
import { createRequire } from "node:module";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

const root = join(dirname(fileURLToPath(import.meta.url)), "..");
const dist = join(root, "dist");
const flags = new Set(process.argv.slice(2));
if (flags.has("--if-missing") && existsSync(join(dist, "cli", "main.js"))) process.exit(0);

let compiler;
try {
  compiler = createRequire(import.meta.url).resolve("typescript/lib/tsc.js");
} catch {
  if (flags.has("--if-possible")) process.exit(0);
  console.error("build: expected the TypeScript compiler in node_modules, found none. Run `npm install` first.");
  process.exit(1);
}
rmSync(dist, { recursive: true, force: true });
const { status } = spawnSync(process.execPath, [compiler, "-p", join(root, "tsconfig.build.json")], { stdio: "inherit" });
process.exit(status ?? 1);
