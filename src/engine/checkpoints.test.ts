import { mkdirSync, mkdtempSync, readdirSync, readFileSync, renameSync, rmSync, truncateSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import { CheckpointError } from "../base/errors.ts";
import { manifestName, newProgress, readCheckpoint } from "./checkpoint-manifest.ts";
import { CheckpointStore, openCheckpoint } from "./checkpoints.ts";

let directory: string;
let store: CheckpointStore;
beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), "longwave-checkpoints-"));
  store = new CheckpointStore(directory);
});
afterEach(() => rmSync(directory, { recursive: true, force: true }));

const save = (step: number, content = "weights", best?: number) =>
  store.save({
    step,
    config: { width: 8 },
    state: { position: step },
    progress: { ...newProgress(), ...(best !== undefined && { best: { step: best, metric: "loss", value: 1 } }) },
    keepLast: 3,
    write: (path) => {
      mkdirSync(join(path, "adapter"));
      writeFileSync(join(path, "model.safetensors"), content);
      writeFileSync(join(path, "adapter", "config.json"), "{}");
    },
  });

test("a checkpoint is a folder that describes itself", async () => {
  const { path, bytes } = await save(7);
  expect(path).toBe(join(directory, "checkpoints", "step-00000007"));
  expect(readdirSync(path).sort()).toEqual(["adapter", "model.safetensors", "trainer.json"]);
  expect(readCheckpoint(path)).toMatchObject({ path, step: 7, config: { width: 8 }, state: { position: 7 } });
  expect(readCheckpoint(path).files).toEqual({ "adapter/config.json": 2, "model.safetensors": 7 });
  expect(bytes).toBe(9 + readFileSync(join(path, manifestName)).length);
});

test("references", async () => {
  for (const step of [1, 2, 3]) await save(step, "weights", 2);
  expect(store.resolve("latest").step).toBe(3);
  expect(store.resolve("best").step).toBe(2);
  for (const reference of [1, "1", "step-00000001", store.pathOf(1)]) expect(store.resolve(reference).step).toBe(1);
  expect(openCheckpoint(directory).step).toBe(3);
  expect(() => store.resolve(9)).toThrow(/expected a checkpoint of step 9, got steps 1, 2, 3/);
  expect(() => store.resolve("/nowhere/at/all")).toThrow(CheckpointError);
  expect(() => new CheckpointStore(join(directory, "other")).resolve("latest")).toThrow(/expected a complete latest checkpoint, got none/);
});

test("the last k and the best stay; the same step is replaced", async () => {
  for (const step of [1, 2, 3, 4, 5]) await save(step, "weights", Math.min(step, 2));
  expect(store.steps()).toEqual([2, 3, 4, 5]);
  await save(5, "new weights", 2);
  expect(readFileSync(join(store.pathOf(5), "model.safetensors"), "utf8")).toBe("new weights");
  expect(store.steps()).toEqual([2, 3, 4, 5]);
});

const faults: [string, RegExp, (path: string) => void][] = [
  ["a cut file", /model\.safetensors: expected 7 bytes, got 3/, (path) => truncateSync(join(path, "model.safetensors"), 3)],
  ["a missing file", /config\.json: expected 2 bytes, got no file/, (path) => rmSync(join(path, "adapter"), { recursive: true })],
  [
    "a missing manifest",
    /trainer\.json: expected the trainer\.json of a longwave checkpoint, got no file/,
    (path) => rmSync(join(path, manifestName)),
  ],
  ["a cut manifest", /got text that is not JSON/, (path) => truncateSync(join(path, manifestName), 50)],
  ["another program's file", /got another kind of JSON/, (path) => writeFileSync(join(path, manifestName), '{"global_step": 3}')],
  ["a list", /got another kind of JSON/, (path) => writeFileSync(join(path, manifestName), "[]")],
  ["a newer format", /expected format version 1, got 2/, (path) => edit(path, { version: 2 })],
  ["a wrong field", /got a wrong "step"/, (path) => edit(path, { step: -1 })],
];

function edit(path: string, changes: object): void {
  const manifest = JSON.parse(readFileSync(join(path, manifestName), "utf8")) as object;
  writeFileSync(join(path, manifestName), JSON.stringify({ ...manifest, ...changes }));
}

test.each(faults)("%s is named, and the previous checkpoint serves", async (_, message, damage) => {
  await save(1);
  await save(2);
  damage(store.pathOf(2));
  expect(() => store.resolve(2)).toThrow(CheckpointError);
  expect(() => store.resolve(2)).toThrow(message);
  const heard: string[] = [];
  expect(store.latest((error) => heard.push(error.message))?.step).toBe(1);
  expect(heard).toHaveLength(1);
  expect(heard[0]).toMatch(message);
  expect(store.resolve("latest").step).toBe(1);
});

test("a failed save leaves everything as it was", async () => {
  await save(1);
  const attempt = store.save({
    step: 2,
    config: {},
    state: {},
    progress: newProgress(),
    keepLast: 1,
    write: (path) => {
      writeFileSync(join(path, "model.safetensors"), "half");
      throw Object.assign(new Error("EDQUOT: disk quota exceeded, write"), { code: "EDQUOT", syscall: "write" });
    },
  });
  await expect(attempt).rejects.toThrow(CheckpointError);
  await expect(attempt).rejects.toMatchObject({ hint: expect.stringContaining("Free some space") });
  expect(readdirSync(store.directory).sort()).toEqual(["index.json", "step-00000001"]);
});

test("trainer.json belongs to the store", async () => {
  const attempt = store.save({
    step: 1,
    config: {},
    state: {},
    progress: newProgress(),
    keepLast: 1,
    write: (path) => writeFileSync(join(path, manifestName), "{}"),
  });
  await expect(attempt).rejects.toThrow(/expected files other than trainer\.json/);
  expect(store.steps()).toEqual([]);
});

test("what a killed process left is completed or removed", async () => {
  await save(1);
  await save(2);
  // 2^22 is the largest process id that Linux gives; no process has it here.
  const host = readdirName();
  renameSync(store.pathOf(2), `${store.pathOf(2)}.old-4194304-${host}00000000`);
  mkdirSync(join(store.directory, "removed-step-00000000"));
  mkdirSync(`${store.pathOf(3)}.tmp-4194304-${host}11111111`);
  expect(store.steps()).toEqual([1, 2]);
  expect(readdirSync(store.directory).sort()).toEqual(["index.json", "step-00000001", "step-00000002"]);
});

/** The part of a temporary name that stands for this machine, taken from a real one. */
function readdirName(): string {
  let name = "";
  const seen = new CheckpointStore(join(directory, "probe"));
  void seen.save({
    step: 1,
    config: {},
    state: {},
    progress: newProgress(),
    keepLast: 1,
    write: (path) => {
      name = /\.tmp-\d+-([0-9a-f]{4})/.exec(path)?.[1] ?? "";
    },
  });
  return name;
}
