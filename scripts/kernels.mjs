// Assembles src/formats/kernels/kernels.wat to the bytes that the package carries. A test says whether they are up to date.
import { readFileSync, writeFileSync } from "node:fs";
import wabt from "wabt";

const folder = new URL("../src/formats/kernels/", import.meta.url);
const module = (await wabt()).parseWat("kernels.wat", readFileSync(new URL("kernels.wat", folder), "utf8"), { simd: true });
module.validate();
const lines = Buffer.from(module.toBinary({}).buffer)
  .toString("base64")
  .match(/.{1,136}/g);
const text = `// Made from kernels.wat by scripts/kernels.mjs.
export const kernelBytes = [
${lines.map((line) => `  "${line}",\n`).join("")}].join("");
`;
writeFileSync(new URL("bytes.ts", folder), text);
