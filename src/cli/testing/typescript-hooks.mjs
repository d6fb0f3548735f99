// Loader hook: removes types from .ts files with the TypeScript compiler. Nothing is checked.
import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import typescript from "typescript";

const compilerOptions = { target: "ES2023", module: "ESNext", verbatimModuleSyntax: true };

export async function load(url, context, nextLoad) {
  if (!url.startsWith("file:") || !url.endsWith(".ts")) return nextLoad(url, context);
  const { outputText } = typescript.transpileModule(readFileSync(fileURLToPath(url), "utf8"), { compilerOptions });
  return { format: "module", shortCircuit: true, source: outputText };
}
