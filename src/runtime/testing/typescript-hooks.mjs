// Loader hook for child processes of tests: removes the types from .ts files; nothing is checked. Node 20 cannot do it itself.
import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import typescript from "typescript";

const compilerOptions = { target: "ES2023", module: "ESNext", verbatimModuleSyntax: true };

export async function load(url, context, nextLoad) {
  if (!url.startsWith("file:") || !url.endsWith(".ts")) return nextLoad(url, context);
  const { outputText } = typescript.transpileModule(readFileSync(fileURLToPath(url), "utf8"), { compilerOptions });
  return { format: "module", shortCircuit: true, source: outputText };
}
