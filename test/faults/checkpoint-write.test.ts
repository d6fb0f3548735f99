// A full disk, a file size limit and a killed process while a checkpoint is written: the earlier one must survive, readable.
import { spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import { mkdirSync, mkdtempSync, readdirSync, rmSync, statSync, truncateSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { recoverDirectory } from "../../src/base/atomic.ts";
import { FormatError } from "../../src/base/errors.ts";
import { openSafetensors } from "../../src/formats/safetensors.ts";
import { writeSafetensors } from "../../src/formats/safetensors-write.ts";
import { transpile } from "./child-module.ts";

const long = process.env.LONGWAVE_TEST_LONG === "1";
let root: string;
let child: string;

beforeAll(() => {
  root = mkdtempSync(join(tmpdir(), "longwave-faults-"));
  transpile(["base/atomic.ts", "formats/safetensors.ts", "formats/safetensors-write.ts"], join(root, "code"));
  // Checkpoint `step` holds two tensors whose every element is the step.
  child = join(root, "code", "child.js");
  writeFileSync(
    child,
    `import { readdirSync } from "node:fs";
import { dirname, join } from "node:path";
import { writeDirectoryAtomic } from "./base/atomic.js";
import { openSafetensors } from "./formats/safetensors.js";
import { writeSafetensors } from "./formats/safetensors-write.js";
const [mode, path] = process.argv.slice(2);
const save = (step, elements) => writeDirectoryAtomic(path, (at) => {
  const data = new Float32Array(elements).fill(step);
  writeSafetensors(join(at, "model.safetensors"), ["a", "b"].map((name) => ({ name, dtype: "f32", shape: [elements], data })));
});
if (mode === "full") {
  save(1, 1000);
  let error = {};
  try { save(2, 4 << 20); } catch (caught) { error = { name: caught.name, message: caught.message, hint: caught.hint }; }
  const kept = openSafetensors(path).read("b").data;
  save(3, 1000);
  const next = openSafetensors(path).read("b").data;
  console.log(JSON.stringify({ error, kept: [kept.length, kept[0], kept.at(-1)], next: next[0], left: readdirSync(dirname(path)) }));
} else {
  for (let step = 1; ; step++) { save(step, 200_000); if (step === 1) console.log("ready"); }
}
`,
  );
});
afterAll(() => rmSync(root, { recursive: true, force: true }));

function expectIntact(output: string, code: string): void {
  const { error, kept, next, left } = JSON.parse(output);
  expect(error.name).toBe("CheckpointError");
  expect(error.message).toContain(code);
  expect(error.hint).toMatch(/What was saved before is intact/);
  expect(kept).toEqual([1000, 1, 1]);
  expect(next).toBe(3);
  expect(left).toEqual(["last"]);
}

describe("a checkpoint that cannot be written", () => {
  const mount = join(tmpdir(), `longwave-full-${process.pid}`);
  const canMount = (() => {
    mkdirSync(mount, { recursive: true });
    return spawnSync("unshare", ["-m", "mount", "-t", "tmpfs", "tmpfs", mount]).status === 0;
  })();
  afterAll(() => rmSync(mount, { recursive: true, force: true }));

  it.skipIf(!canMount)("on a full disk leaves the earlier one and room for the next", () => {
    const script = `mount -t tmpfs -o size=8m tmpfs "${mount}" && exec "${process.execPath}" "${child}" full "${mount}/last"`;
    const result = spawnSync("unshare", ["-m", "sh", "-c", script], { encoding: "utf8" });
    expect(result.stderr).toBe("");
    expectIntact(result.stdout, "ENOSPC");
  });

  it.skipIf(process.platform === "win32")("beyond a file size limit leaves the earlier one", () => {
    const folder = join(root, "limited");
    // The signal must be ignored for the system call to return an error instead of ending the process.
    const script = `trap '' XFSZ; ulimit -f 4096; exec "${process.execPath}" "${child}" full "${folder}/last"`;
    const result = spawnSync("bash", ["-c", script], { encoding: "utf8" });
    expect(result.stderr).toBe("");
    expectIntact(result.stdout, "EFBIG");
  });
});

describe("a process killed while it writes", () => {
  it.skipIf(process.platform === "win32")(
    "leaves a whole checkpoint, and no leftovers after recovery",
    { timeout: long ? 3_600_000 : 60_000 },
    async () => {
      for (let round = 0; round < (long ? 100 : 6); round++) {
        const folder = join(root, `killed-${round}`);
        const path = join(folder, "last");
        const writer = spawn(process.execPath, [child, "loop", path], { stdio: ["ignore", "pipe", "inherit"] });
        await once(writer.stdout, "data");
        // Spread over a save (some ten milliseconds), by another amount each round.
        await new Promise((wake) => setTimeout(wake, (round * 7.3) % 40));
        writer.kill("SIGKILL");
        await once(writer, "exit");
        recoverDirectory(path);
        expect(readdirSync(folder)).toEqual(["last"]);
        using file = openSafetensors(path);
        const [a, b] = [file.read("a").data, file.read("b").data];
        expect(a[0]).toBeGreaterThanOrEqual(1);
        expect(a.every((value) => value === a[0])).toBe(true);
        expect(b.every((value) => value === a[0])).toBe(true);
      }
    },
  );
});

describe("a file cut short", () => {
  it("is refused at every length", () => {
    const path = join(root, "cut.safetensors");
    writeSafetensors(path, [{ name: "a", dtype: "f32", shape: [50], data: new Float32Array(50) }]);
    for (let length = statSync(path).size - 1; length >= 0; length--) {
      truncateSync(path, length);
      expect(() => openSafetensors(path), `${length} bytes`).toThrow(FormatError);
    }
  });

  it("after it was opened is an error when reading, not silence", () => {
    const path = join(root, "shrinks.safetensors");
    writeSafetensors(path, [{ name: "a", dtype: "f32", shape: [5000], data: new Float32Array(5000) }]);
    using file = openSafetensors(path);
    truncateSync(path, 9000);
    expect(() => file.read("a")).toThrow(/end of the file/);
  });
});
