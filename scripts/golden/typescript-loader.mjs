// Loader hook: removes the types from .ts files, which Node 20 cannot do itself; nothing is checked. What it made is kept in .cache/,
// named by the hash of what it was made from, because the compiler takes longer than most cases.
import { createHash } from "node:crypto";
import { mkdirSync, readFileSync, renameSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { fileURLToPath } from "node:url";

const require = createRequire(import.meta.url);
const { version } = require("typescript/package.json");
const options = { target: "ES2023", module: "ESNext", verbatimModuleSyntax: true };
const cache = fileURLToPath(new URL("../../.cache/golden/", import.meta.url));

export async function load(url, context, nextLoad) {
  if (!url.startsWith("file:") || !url.endsWith(".ts")) return nextLoad(url, context);
  const text = readFileSync(fileURLToPath(url), "utf8");
  const hash = createHash("sha256")
    .update(JSON.stringify([version, options, text]))
    .digest("hex");
  return { format: "module", shortCircuit: true, source: kept(hash) ?? make(hash, text) };
}

function kept(hash) {
  try {
    return readFileSync(`${cache}${hash}.js`, "utf8");
  } catch {
    return undefined;
  }
}

function make(hash, text) {
  const { outputText } = require("typescript").transpileModule(text, { compilerOptions: options });
  try {
    mkdirSync(cache, { recursive: true });
    const aside = `${cache}${hash}.${process.pid}`;
    writeFileSync(aside, outputText);
    renameSync(aside, `${cache}${hash}.js`);
  } catch {
    // A checkout that cannot be written to runs all the same.
  }
  return outputText;
}
