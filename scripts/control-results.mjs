// Training runs in environments, one small file each in docs/results/control, and the page that is made from them.
//   node scripts/control-results.mjs --dry-run            what is there and what is missing
//   node scripts/control-results.mjs --only trpo-Acrobot  trains what is missing and matches
//   node scripts/control-results.mjs --page               writes docs/results-control.md anew
import { register } from "node:module";

register("../src/runtime/testing/typescript-hooks.mjs", import.meta.url);
const { main } = await import("./control-results/main.ts");
process.exitCode = await main(process.argv.slice(2));
