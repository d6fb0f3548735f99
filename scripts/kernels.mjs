// Assembles src/formats/kernels/kernels.wat to the bytes that the package carries.
//   --check   only say whether they are up to date (exit code 1 when not)
import { readFileSync, writeFileSync } from "node:fs";
import wabt from "wabt";

const folder = new URL("../src/formats/kernels/", import.meta.url);
const source = readFileSync(new URL("kernels.wat", folder), "utf8");
const module = (await wabt()).parseWat("kernels.wat", source, { simd: true });
module.validate();
const lines = Buffer.from(module.toBinary({}).buffer)
  .toString("base64")
  .match(/.{1,136}/g);
const text = `// Made from kernels.wat by scripts/kernels.mjs.
export const kernelBytes = [
${lines.map((line) => `  "${line}",\n`).join("")}].join("");
`;
const target = new URL("bytes.ts", folder);
if (!process.argv.includes("--check")) writeFileSync(target, text);
else if (readFileSync(target, "utf8") !== text) {
  console.error("src/formats/kernels/bytes.ts: expected what kernels.wat says; run node scripts/kernels.mjs");
  process.exitCode = 1;
}
