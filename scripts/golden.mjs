// `npm run golden -- <folder or file>`: runs every reference case that it recognises there against the sources of this checkout.
// Types are removed on the way and nothing is built, so that what runs is always what stands in src/.
import { register } from "node:module";

register("./golden/typescript-loader.mjs", import.meta.url);
const { main } = await import("./golden/main.ts");
process.exitCode = await main(process.argv.slice(2));
