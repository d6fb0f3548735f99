// Transpiles a source file and everything it imports into a folder of plain JavaScript, so that a child process (to be killed, or to
// run on a full disk) runs the real code. Bare imports are not resolved there.
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { dirname, join, relative, resolve } from "node:path";
import ts from "typescript";

const source = new URL("../../src/", import.meta.url).pathname;

/** @returns the folder's path of each entry's JavaScript, in the order given. Entries are relative to src/. */
export function transpile(entries: readonly string[], folder: string): string[] {
  const done = new Set<string>();
  const visit = (file: string) => {
    if (done.has(file)) return;
    done.add(file);
    const text = readFileSync(file, "utf8");
    const { outputText } = ts.transpileModule(text, {
      compilerOptions: { module: ts.ModuleKind.ESNext, target: ts.ScriptTarget.ES2022, rewriteRelativeImportExtensions: true },
    });
    const target = join(folder, relative(source, file)).replace(/\.ts$/, ".js");
    mkdirSync(dirname(target), { recursive: true });
    writeFileSync(target, outputText);
    for (const [, specifier] of outputText.matchAll(/from "(\.[^"]+)\.js"/g)) visit(resolve(dirname(file), `${specifier}.ts`));
  };
  for (const entry of entries) visit(join(source, entry));
  writeFileSync(join(folder, "package.json"), '{"type":"module"}');
  return entries.map((entry) => join(folder, entry).replace(/\.ts$/, ".js"));
}
