// Loader hook for child processes and threads of tests: removes the types from .ts files; nothing is checked. Node 20 cannot do it itself.
// What was made is kept in node_modules/.cache under a hash of the text, so that most processes need not load the compiler.
import { createHash } from "node:crypto";
import { mkdirSync, readFileSync, renameSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { threadId } from "node:worker_threads";

const compilerOptions = { target: "ES2023", module: "ESNext", verbatimModuleSyntax: true };
const cache = fileURLToPath(new URL("../../../node_modules/.cache/longwave-typescript/", import.meta.url));

export async function load(url, context, nextLoad) {
  if (!url.startsWith("file:") || !url.endsWith(".ts")) return nextLoad(url, context);
  return { format: "module", shortCircuit: true, source: await withoutTypes(readFileSync(fileURLToPath(url), "utf8")) };
}

async function withoutTypes(text) {
  const hash = createHash("sha256").update(JSON.stringify(compilerOptions)).update(text).digest("hex");
  const file = join(cache, `${hash}.js`);
  try {
    return readFileSync(file, "utf8");
  } catch {
    const { default: typescript } = await import("typescript");
    const { outputText } = typescript.transpileModule(text, { compilerOptions });
    try {
      mkdirSync(cache, { recursive: true });
      // Others may be writing the same: whole files only.
      const unfinished = `${file}.${process.pid}.${threadId}`;
      writeFileSync(unfinished, outputText);
      renameSync(unfinished, file);
    } catch {
      // A folder that cannot be written costs time alone.
    }
    return outputText;
  }
}
