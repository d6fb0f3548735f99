// Prompts are read while the event loop goes on, can be stopped, and leave what reading at once leaves.
import { setImmediate as turn } from "node:timers/promises";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { BackendError } from "../base/errors.ts";
import { loadDecoder } from "../models/decoder/checkpoint.ts";
import type { Backend } from "../runtime/backend.ts";
import { openBackend } from "../runtime/open.ts";
import { LookupDrafter } from "./drafters/lookup.ts";
import { complete, type GenerateOptions } from "./generate.ts";
import { DecoderRunner } from "./runner.ts";

const stories = loadDecoder("assets/stories260k/stories260K.bin");
const ids = Int32Array.from({ length: 200 }, (_, i) => 1 + ((i * i * 31 + i) % 500));
const request = { ids, sampling: { doSample: false }, maxNewTokens: 8, eosTokenIds: [] };

let backend: Backend;
beforeAll(() => {
  backend = openBackend({ threads: 1 }).backend;
});
afterAll(() => backend.dispose());
const open = (options = {}) => new DecoderRunner(backend, stories, { weights: "shared", capacity: 256, prefillChunk: 32, ...options });

function expectNear(actual: ArrayLike<number>, expected: ArrayLike<number>): void {
  expect(actual.length).toBe(expected.length);
  let most = 0;
  for (let i = 0; i < expected.length; i++) most = Math.max(most, Math.abs(actual[i] - expected[i]));
  expect(most).toBeLessThan(2e-4);
}

test("reading later leaves what reading at once leaves", async () => {
  using now = open();
  using later = open();
  using whole = open({ prefillChunk: 256 });
  const expected = whole.append(0, ids).slice();
  expectNear(now.append(0, ids), expected);
  expectNear(await later.appendAsync(0, ids), expected);
  expectNear(later.cache.snapshot(0).data, whole.cache.snapshot(0).data);
  later.reset(0);
  await later.prefillAsync(0, ids.subarray(0, 150));
  const rows = await later.appendRowsAsync(0, ids.subarray(150, 180));
  expect(rows.logits.length).toBe(30 * stories.config.vocabSize);
  expectNear(later.append(0, ids.subarray(180)), expected);
});

describe.each<[string, () => GenerateOptions]>([
  ["plain", () => ({})],
  ["with drafts", () => ({ drafter: new LookupDrafter() })],
])("%s", (_, options) => {
  test("the event loop turns while a prompt is read", async () => {
    using runner = open();
    const lengths = new Set<number>();
    let done = false;
    const watching = (async () => {
      while (!done) {
        lengths.add(runner.cache.lengths[0]);
        await turn();
      }
    })();
    const { ids: text } = await complete(runner, request, options());
    done = true;
    await watching;
    // Chunk by chunk.
    for (const length of [0, 32, 64, 96, 128, 160]) expect(lengths).toContain(length);
    using plain = open();
    expect((await complete(plain, request)).ids).toEqual(text);
  });

  test("an abort stops the reading", async () => {
    using runner = open();
    const controller = new AbortController();
    const reason = new Error("enough");
    const answer = complete(runner, request, { ...options(), signal: controller.signal });
    const failure = answer.catch((error: unknown) => error);
    while (runner.cache.lengths[0] < 64) await turn();
    controller.abort(reason);
    expect(await failure).toBe(reason);
    expect(runner.cache.lengths[0]).toBeLessThan(128);
    // What was read counts: the next answer goes on from there.
    const held = runner.heldLength(0, ids);
    expect(held).toBe(runner.cache.lengths[0]);
    using plain = open();
    const { ids: text } = await complete(runner, { ...request, cachedLength: held }, options());
    expect(text).toEqual((await complete(plain, request)).ids);
  });
});

test("nothing else is computed meanwhile", async () => {
  using runner = open({ batch: 2 });
  const reading = runner.prefillAsync(0, ids);
  expect(() => runner.append(1, [1])).toThrow(BackendError);
  expect(() => runner.step([1, 1])).toThrow("expected no other call while a prompt is read");
  await expect(runner.appendAsync(1, [1])).rejects.toThrow(BackendError);
  expect(() => runner.reset(0)).toThrow(BackendError);
  await reading;
  expect(runner.append(1, [1]).length).toBe(stories.config.vocabSize);
  await expect(runner.appendAsync(1, [])).rejects.toThrow("at least one token");
  // A runner may go in the middle of it.
  const other = open();
  const cut = other.prefillAsync(0, ids);
  other.dispose();
  await expect(cut).rejects.toThrow("disposed");
});
