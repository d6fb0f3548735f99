// Runs bench/main.ts from the sources, so that what is measured is what is in the tree. Node 20 cannot remove types itself.
import { register } from "node:module";

register("../src/runtime/testing/typescript-hooks.mjs", import.meta.url);
const { main } = await import("../bench/main.ts");
process.exitCode = await main(process.argv.slice(2));
