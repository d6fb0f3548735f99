// Compiles src/ to dist/ with the TypeScript compiler.
//   --if-missing   do nothing when dist/ is already there (npm start, npm run golden)
//   --if-possible  do nothing when the compiler is not installed (a production install of a git dependency)

import { spawnSync } from "node:child_process";
import { existsSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
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
if (status !== 0) process.exit(status ?? 1);

// The compiler leaves extensions alone in dynamic imports of functions whose `using` declaration it lowers, and in import types.
for (const name of readdirSync(dist, { recursive: true, encoding: "utf8" })) {
  if (!name.endsWith(".js") && !name.endsWith(".d.ts")) continue;
  const file = join(dist, name);
  const text = readFileSync(file, "utf8");
  const mended = text.replaceAll(/(\bimport\("\.[^"]*)\.ts("\))/g, "$1.js$2");
  if (mended !== text) writeFileSync(file, mended);
}
