// Compiles src/ with the TypeScript compiler and joins the modules to the files of dist/: a process that opens a few large files
// starts a quarter of a second sooner than one that opens five hundred small ones.
//   --if-missing   do nothing when dist/ is already there (npm start, npm run golden)
//   --if-changed   do nothing when dist/ is newer than all that it is made of (npm and npx run prepare more often than needed)
//   --if-possible  do nothing when the compiler is not installed (a production install of a git dependency)

import { spawnSync } from "node:child_process";
import {
  chmodSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmdirSync,
  rmSync,
  statSync,
  writeFileSync,
} from "node:fs";
import { createRequire, isBuiltin } from "node:module";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

const root = join(dirname(fileURLToPath(import.meta.url)), "..");
const dist = join(root, "dist");
const { exports, dependencies } = JSON.parse(readFileSync(join(root, "package.json"), "utf8"));
const joined = ["zod", "commander", "picocolors", "yaml", "@bufbuild/protobuf", "@huggingface/jinja"];
const installed = Object.keys(dependencies).filter((name) => !joined.includes(name));
const flags = new Set(process.argv.slice(2));
if (flags.has("--if-missing") && existsSync(join(dist, "cli", "main.js"))) process.exit(0);
if (flags.has("--if-changed") && isCurrent()) process.exit(0);

const [compiler, bundler] = await tools();
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
await bundle();
// npm makes it executable when it links the command, and not again after the next build.
chmodSync(join(staged, "cli", "main.js"), 0o755);
rmSync(dist, { recursive: true, force: true });
renameSync(staged, dist);

async function tools() {
  try {
    return [createRequire(import.meta.url).resolve("typescript/lib/tsc.js"), await import("rolldown")];
  } catch {
    if (flags.has("--if-possible")) process.exit(0);
    console.error("build: expected the TypeScript compiler and rolldown in node_modules, found none. Run `npm install` first.");
    process.exit(1);
  }
}

/** Puts one file for each export, the command and the worker, and what they share in chunks/, in the place of the compiled modules. */
async function bundle() {
  const entries = Object.values(exports).flatMap(({ default: file }) => (file ? [file.slice("./dist/".length, -".js".length)] : []));
  // Modules find assets/ two folders above themselves, and the worker beside themselves.
  const input = Object.fromEntries([...entries, "cli/main"].map((name) => [name, join(staged, `${name}.js`)]));
  input["chunks/vector-worker"] = join(staged, "rl", "control", "vector-worker.js");
  const built = await bundler.rolldown({ input, platform: "node", external: (name) => isExternal(name) });
  const { output } = await built.generate({ entryFileNames: "[name].js", chunkFileNames: "chunks/[name]-[hash].js" });
  for (const name of readdirSync(staged, { recursive: true, encoding: "utf8" })) if (name.endsWith(".js")) rmSync(join(staged, name));
  mkdirSync(join(staged, "chunks"));
  for (const { fileName, code } of output) {
    const [folder, ...rest] = fileName.split("/");
    const isInPlace = code.includes("vector-worker.js") ? folder === "chunks" && rest.length === 1 : rest.length === 1;
    if (/\bimport\.meta\.url\b/.test(code) && !isInPlace)
      throw new Error(`${fileName}: expected code that looks for files beside itself in a folder of dist/, with the worker in chunks/`);
    writeFileSync(join(staged, fileName), code);
  }
  writeFileSync(join(staged, "LICENSES.txt"), joined.map(licenceOf).join("\n"));
  removeEmptyFolders(staged);
}

/**
 * What users have: Node's modules, and dependencies that are loaded from node_modules, most of them when they are needed. The others, many small
 * modules that every command needs, are joined too, and so are the helpers that the bundler itself imports.
 */
function isExternal(name) {
  return isBuiltin(name) || installed.some((dependency) => name === dependency || name.startsWith(`${dependency}/`));
}

function licenceOf(name) {
  const folder = join(root, "node_modules", name);
  const { version, license, author, repository } = JSON.parse(readFileSync(join(folder, "package.json"), "utf8"));
  const own = readdirSync(folder).find((entry) => /^licen[cs]e/i.test(entry));
  // Some packages name the Apache licence without its text; the compiler comes with it.
  const file = own ? join(folder, own) : /Apache-2\.0/.test(license) ? join(root, "node_modules", "typescript", "LICENSE.txt") : undefined;
  const text = file
    ? readFileSync(file, "utf8").trim()
    : `Copyright ${author?.name ?? author ?? "its authors"}; no text of the licence comes with it: see ${repository?.url ?? repository ?? name}`;
  return `${name} ${version} (${license})\n\n${text}\n`;
}

function removeEmptyFolders(folder) {
  for (const entry of readdirSync(folder, { withFileTypes: true })) {
    if (!entry.isDirectory()) continue;
    const path = join(folder, entry.name);
    removeEmptyFolders(path);
    if (readdirSync(path).length === 0) rmdirSync(path);
  }
}

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
