// Compiles src/ to dist/ with the TypeScript compiler.
//   --if-missing   do nothing when dist/ is already there (npm start, npm run golden)
//   --if-changed   do nothing when dist/ is newer than all that it is made of (npm and npx run prepare more often than needed)
//   --if-possible  do nothing when the compiler is not installed (a production install of a git dependency)

import { spawnSync } from "node:child_process";
import { chmodSync, existsSync, readdirSync, readFileSync, renameSync, rmSync, statSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

const root = join(dirname(fileURLToPath(import.meta.url)), "..");
const dist = join(root, "dist");
const flags = new Set(process.argv.slice(2));
if (flags.has("--if-missing") && existsSync(join(dist, "cli", "main.js"))) process.exit(0);
if (flags.has("--if-changed") && isCurrent()) process.exit(0);

let compiler;
try {
  compiler = createRequire(import.meta.url).resolve("typescript/lib/tsc.js");
} catch {
  if (flags.has("--if-possible")) process.exit(0);
  console.error("build: expected the TypeScript compiler in node_modules, found none. Run `npm install` first.");
  process.exit(1);
}
// Built aside and then put in place, so that a build that is stopped or fails leaves the old one whole.
const staged = join(root, `dist.${process.pid}.tmp`);
process.once("exit", () => rmSync(staged, { recursive: true, force: true }));
const { status } = spawnSync(process.execPath, [compiler, "-p", join(root, "tsconfig.build.json"), "--outDir", staged], {
  stdio: "inherit",
});
if (status !== 0) process.exit(status ?? 1);

// The compiler leaves extensions alone in dynamic imports of functions whose `using` declaration it lowers, and in import types.
for (const name of readdirSync(staged, { recursive: true, encoding: "utf8" })) {
  if (!name.endsWith(".js") && !name.endsWith(".d.ts")) continue;
  const file = join(staged, name);
  const text = readFileSync(file, "utf8");
  const mended = text.replaceAll(/(\bimport\("\.[^"]*)\.ts("\))/g, "$1.js$2");
  if (mended !== text) writeFileSync(file, mended);
}
// npm makes it executable when it links the command, and not again after the next build.
chmodSync(join(staged, "cli", "main.js"), 0o755);
rmSync(dist, { recursive: true, force: true });
renameSync(staged, dist);

/** Folders count too: their time changes when a file is removed. */
function isCurrent() {
  const built = join(dist, "cli", "main.js");
  if (!existsSync(built)) return false;
  const sources = ["src", "package.json", "tsconfig.json", "tsconfig.build.json", "scripts/build.mjs"].flatMap((name) => {
    const path = join(root, name);
    if (!existsSync(path)) return [];
    return [
      path,
      ...(statSync(path).isDirectory() ? readdirSync(path, { recursive: true, encoding: "utf8" }).map((file) => join(path, file)) : []),
    ];
  });
  const { mtimeMs } = statSync(built);
  return sources.every((path) => statSync(path).mtimeMs < mtimeMs);
}
