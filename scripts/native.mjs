// Compiles native/ to the libraries that the package carries in assets/native, for the platforms on which they were tried, and notes what
// they were made from. Wanted: Zig, whose C compiler gives the same bytes everywhere. `pip install ziglang`, or ZIG=/path/to/zig.
import { spawnSync } from "node:child_process";
import { createHash } from "node:crypto";
import { readFileSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

const root = join(dirname(fileURLToPath(import.meta.url)), "..");
const compiler = process.env.ZIG ?? "zig";
const version = "0.17.1";
const sources = ["native/grouped-attention.c", "native/matmul-blocks.c"];
const headers = ["native/ort.h", "native/strip-avx2.h", "native/strip-vnni.h"];
const linux = ["-target", "x86_64-linux-gnu", "-mavx2", "-mfma"];
const targets = { "linux-x64": linux, "linux-x64-vnni": [...linux, "-mavx512f", "-mavx512vnni"] };
const flags = ["-shared", "-nostdlib", "-ffreestanding", "-fPIC", "-fvisibility=hidden", "-O3", "-g0", "-Wall", "-Wextra", "-Werror", "-s"];
const linking = ["-Wl,--build-id=none", "-Wl,-z,max-page-size=4096", "-Wl,-z,nodelete"];

const found = spawnSync(compiler, ["version"], { encoding: "utf8" });
if (found.error || found.stdout.trim() !== version) {
  console.error(
    `native: expected Zig ${version} as ${compiler}, got ${found.error ? found.error.message : found.stdout.trim()}. Set ZIG to its path.`,
  );
  process.exit(1);
}
const sha256 = (path) =>
  createHash("sha256")
    .update(readFileSync(join(root, path)))
    .digest("hex");
const libraries = {};
for (const [platform, target] of Object.entries(targets)) {
  const output = `assets/native/${platform}.so`;
  // Relative paths: none of this machine's gets into the library.
  const { status } = spawnSync(compiler, ["cc", ...target, ...flags, ...linking, "-o", output, ...sources], {
    cwd: root,
    stdio: "inherit",
  });
  if (status !== 0) process.exit(status ?? 1);
  libraries[`${platform}.so`] = sha256(output);
}
const made = {
  compiler: `zig ${version}`,
  source: Object.fromEntries([...sources, ...headers].map((path) => [path, sha256(path)])),
  libraries,
};
writeFileSync(join(root, "assets/native/made-from.json"), `${JSON.stringify(made, null, 2)}\n`);
