// Runs an example on any supported Node: its types are removed on the way, and "longwave" is the built package, as for a user.
//   npm run example -- linear-regression [arguments of the example]
import { existsSync, readdirSync } from "node:fs";
import { register } from "node:module";
import { fileURLToPath } from "node:url";

const folder = new URL("../examples/", import.meta.url);
const names = readdirSync(folder).flatMap((file) => (file.endsWith(".ts") ? [file.slice(0, -3)] : []));
const [name = "", ...rest] = process.argv.slice(2);
const file = new URL(`${name.replace(/^examples\//, "").replace(/\.ts$/, "")}.ts`, folder);
if (name === "" || !existsSync(file)) {
  console.error(`example: expected one of ${names.join(", ")}, got ${name || "none"}`);
  process.exit(2);
}
register("../src/runtime/testing/typescript-hooks.mjs", import.meta.url);
// An example asks whether it is the program that was started.
process.argv.splice(1, process.argv.length, fileURLToPath(file), ...rest);
await import(file.href);
