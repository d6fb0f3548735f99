// Checks the package as its users get it: packs it, lints the tarball (publint, attw), installs it into empty folders in the two ways
// that work without a download by an install script, and runs the command line and every export there.
//   --no-install   stop after the linters

import { spawnSync } from "node:child_process";
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { publint } from "publint";
import { formatMessage } from "publint/utils";

const root = join(dirname(fileURLToPath(import.meta.url)), "..");
const manifest = JSON.parse(readFileSync(join(root, "package.json"), "utf8"));
const folder = mkdtempSync(join(tmpdir(), "longwave-package-"));
const npm = process.platform === "win32" ? "npm.cmd" : "npm";
const problems = [];

// `npm run` hands this project's npm settings to its children; a user's install does not have them.
const bareEnvironment = Object.fromEntries(
  Object.entries(process.env).filter(([name]) => !/^(npm_|ONNXRUNTIME_NODE_INSTALL|NODE_OPTIONS)/i.test(name)),
);

function run(command, args, options = {}) {
  const { cwd = root, env = {}, expected = 0 } = options;
  const label = [command, ...args].join(" ").replaceAll(folder, "<folder>");
  const result = spawnSync(command, args, { cwd, env: { ...bareEnvironment, ...env }, encoding: "utf8", timeout: 300_000 });
  if (result.status !== expected) {
    problems.push(`${label}: expected exit code ${expected}, got ${result.status ?? result.error ?? result.signal}`);
    console.error(`--- ${label}\n${result.stdout ?? ""}${result.stderr ?? ""}`);
  }
  return result.stdout ?? "";
}

function check(condition, message) {
  if (!condition) problems.push(message);
}

function pack() {
  run(process.execPath, [join(root, "scripts", "build.mjs"), "--if-missing"]);
  const [report] = JSON.parse(run(npm, ["pack", "--json", "--ignore-scripts", "--pack-destination", folder]) || "[{}]");
  if (!report.filename) return undefined;
  const paths = report.files.map(({ path }) => path);
  const stray = paths.filter(
    (path) => !/^(dist|assets)\/|^(package\.json|README\.md|LICENSE|CHANGELOG\.md)$/.test(path) || /\.test\.|\/testing\//.test(path),
  );
  check(stray.length === 0, `tarball: expected no such files: ${stray.slice(0, 5).join(", ")}`);
  for (const path of ["dist/cli/main.js", "assets/native/linux-x64.so", "README.md", "LICENSE", "CHANGELOG.md"])
    check(paths.includes(path), `tarball: expected ${path}`);
  console.log(
    `packed ${report.filename}: ${paths.length} files, ${(report.size / 1024).toFixed(0)} KiB, ${(report.unpackedSize / 1024).toFixed(0)} KiB unpacked`,
  );
  return join(folder, report.filename);
}

async function lint(tarball) {
  const bytes = readFileSync(tarball);
  const { messages, pkg } = await publint({ pack: { tarball: bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.length) } });
  for (const message of messages) {
    const text = `publint ${message.type}: ${formatMessage(message, pkg, { color: false })}`;
    if (message.type === "suggestion") console.log(text);
    else problems.push(text);
  }
  run(process.execPath, [join(root, "node_modules", "@arethetypeswrong", "cli", "dist", "index.js"), tarball, "--profile", "esm-only"]);
}

/** What a user does first, and an import of everything that the package offers. */
function tryOut(cwd) {
  const longwave = (args, expected) =>
    run(process.execPath, [join(cwd, "node_modules", "longwave", manifest.bin.longwave), ...args], { cwd, expected });
  const version = run(process.platform === "win32" ? "npx.cmd" : "npx", ["--no-install", "longwave", "--version"], { cwd }).trim();
  check(version === manifest.version, `longwave --version: expected ${manifest.version}, got "${version}"`);
  const report = JSON.parse(longwave(["doctor", "--json"]) || "{}");
  check(
    report.runtime?.backend === "native",
    `doctor: expected the native backend, got ${JSON.stringify(report.runtime)} ${JSON.stringify(report.problems)}`,
  );
  longwave(["docter"], 2);
  longwave(["quickstart", "--steps", "2"]);
  longwave(["generate", "node_modules/longwave/assets/stories260k/stories260K.bin", "--prompt", "Once", "-n", "5"]);
  const paths = Object.keys(manifest.exports).filter((path) => path !== "./package.json");
  const imports = paths.map((path) => `await import(${JSON.stringify(path.replace(/^\./, manifest.name))});`);
  writeFileSync(join(cwd, "imports.mjs"), imports.join("\n"));
  run(process.execPath, ["imports.mjs"], { cwd });
}

try {
  const tarball = pack();
  if (tarball) {
    await lint(tarball);
    const ways = [
      { name: "skip", flags: [], env: { ONNXRUNTIME_NODE_INSTALL: "skip" } },
      { name: "ignore-scripts", flags: ["--ignore-scripts"], env: {} },
    ];
    for (const { name, flags, env } of process.argv.includes("--no-install") ? [] : ways) {
      const cwd = join(folder, name);
      mkdirSync(cwd);
      writeFileSync(join(cwd, "package.json"), '{ "private": true }\n');
      run(npm, ["install", "--prefer-offline", "--no-audit", "--no-fund", "--omit=dev", ...flags, tarball], { cwd, env });
      tryOut(cwd);
      console.log(`installed and tried: ${name}`);
    }
  }
} finally {
  rmSync(folder, { recursive: true, force: true });
}
for (const problem of problems) console.error(`problem: ${problem}`);
if (problems.length > 0) process.exitCode = 1;
else console.log("package: no problems");
