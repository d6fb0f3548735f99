// The first prompts of float32 models are read, and the first tokens written, before their weights are packed.
import { afterAll, beforeAll, expect, it } from "vitest";
import { allocateDecoder } from "../models/decoder/checkpoint.ts";
import { decoderConfig } from "../models/decoder/config.ts";
import { quantiseDecoder } from "../models/decoder/quantise.ts";
import { initializeParameters } from "../nn/parameter.ts";
import type { Backend } from "../runtime/backend.ts";
import { openBackend } from "../runtime/open.ts";
import { generate } from "./generate.ts";
import { DecoderRunner } from "./runner.ts";
import { TreeShape } from "./token-tree.ts";

let backend: Backend;
beforeAll(() => {
  backend = openBackend({ threads: 1 }).backend;
});
afterAll(() => backend.dispose());

const model = (() => {
  const decoder = allocateDecoder(
    decoderConfig({ vocabSize: 40, width: 32, layers: 2, heads: 2, headWidth: 16, contextLength: 64, initStd: 0.3 }),
  );
  initializeParameters(decoder.specs as never, decoder.parameters, 3);
  return decoder;
})();
const prompt = Array.from({ length: 20 }, (_, i) => (i * 7 + 1) % 40);
const close = (a: ArrayLike<number>, b: ArrayLike<number>): void => {
  expect(a.length).toBe(b.length);
  for (let i = 0; i < a.length; i++) expect(Math.abs(a[i] - b[i])).toBeLessThan(1e-4);
};

it("gives what packed weights give, and holds one packed copy from the seventeenth token on", async () => {
  using plain = new DecoderRunner(backend, model);
  using runner = new DecoderRunner(backend, model);
  await runner.compileAhead();
  close(await runner.appendAsync(0, prompt), plain.append(0, prompt));
  for (let i = 0; i < 16; i++) {
    expect(runner.prepare(0)).toBeUndefined();
    close(runner.step([i]), plain.step([i]));
    expect(runner.memory.packedCopies).toBe(0);
  }
  const packed = runner.prepare(0);
  expect(packed).toBeInstanceOf(Promise);
  await packed;
  expect(runner.memory.packedCopies).toBe(plain.memory.packedCopies);
  expect(runner.prepare(0)).toBeUndefined();
  close(runner.step([5]), plain.step([5]));
  // From now on the programs are the same.
  runner.reset(0);
  plain.reset(0);
  const again = runner.append(0, prompt).slice();
  expect(again).toEqual(plain.append(0, prompt));
});

it.each<[string, (runner: DecoderRunner) => ArrayLike<number>]>([
  ["a token", (runner) => runner.step([5])],
  ["rows", (runner) => runner.appendAll(0, [5, 6])],
  ["a chain", (runner) => runner.appendTree(0, TreeShape.chain(1), [5, 6]).logits],
  ["a tree", (runner) => runner.appendTree(0, new TreeShape([-1, 0, 0]), [5, 6, 7]).logits],
])("%s that does not wait has packed weights all the same", async (_, call) => {
  using plain = new DecoderRunner(backend, model);
  using runner = new DecoderRunner(backend, model);
  await runner.compileAhead();
  runner.append(0, prompt);
  plain.append(0, prompt);
  close(call(runner), call(plain));
  expect(runner.memory.packedCopies).toBeGreaterThan(0);
});

it("a prompt of one token, and the last one of a prompt that the cache holds, do not wait either", async () => {
  using plain = new DecoderRunner(backend, model);
  using runner = new DecoderRunner(backend, model);
  await runner.compileAhead();
  close(await runner.appendAsync(0, [7], { promptLength: 1 }), plain.append(0, [7]));
  close(await runner.appendAsync(0, [8], { promptLength: 2 }), plain.append(0, [8]));
  expect(runner.memory.packedCopies).toBe(0);
  // A token that is no prompt.
  close(await runner.appendAsync(0, [9]), plain.append(0, [9]));
  expect(runner.memory.packedCopies).toBeGreaterThan(0);
});

it("is asked for twice and made once; a profile has all of a runner's calls", async () => {
  const { backend: own } = openBackend({ threads: 1 });
  const runner = new DecoderRunner(own, model);
  await Promise.all([runner.compileAhead(), runner.compileAhead()]);
  await runner.compileAhead();
  runner.append(0, prompt);
  await runner.prepare(0, { drafts: true });
  await runner.compileAhead();
  runner.dispose();
  own.dispose();
  using profiled = new DecoderRunner(backend, model, { profile: true });
  await profiled.compileAhead();
  profiled.append(0, prompt);
  expect(profiled.prepare(0, { drafts: true })).toBeUndefined();
  expect(profiled.endProfile().length).toBeGreaterThan(10);
});

it("only the first two prompts are read so", async () => {
  using plain = new DecoderRunner(backend, model);
  using runner = new DecoderRunner(backend, model);
  await runner.compileAhead();
  for (let i = 0; i < 3; i++) {
    runner.reset(0);
    plain.reset(0);
    close(await runner.appendAsync(0, prompt), plain.append(0, prompt));
    // They may be packed at any time of the second one, and are by the third.
    if (i !== 1) expect(runner.memory.packedCopies > 0).toBe(i === 2);
  }
});

it("rows that are asked for while it is made need a program of their own", async () => {
  using runner = new DecoderRunner(backend, model);
  const first = runner.compileAhead();
  runner.provide({ hidden: true });
  await runner.compileAhead();
  await first;
  expect(runner.appendTree(0, TreeShape.chain(1), [5, 6]).hidden).toHaveLength(64);
});

it("an aborted wait tells the reason, and the next one goes on", async () => {
  using runner = new DecoderRunner(backend, model);
  await runner.compileAhead();
  await runner.appendAsync(0, prompt);
  await expect(runner.prepare(0, { drafts: true, signal: AbortSignal.abort(new Error("enough")) })).rejects.toThrow("enough");
  expect(runner.step([5])).toHaveLength(40);
});

it("a runner may go away while weights are packed", async () => {
  const other = openBackend({ threads: 1 }).backend;
  const runner = new DecoderRunner(other, model);
  const ready = runner.compileAhead();
  runner.dispose();
  await ready;
  const second = new DecoderRunner(other, model);
  await second.compileAhead({ drafts: true });
  second.dispose();
  other.dispose();
  expect(() => second.append(0, prompt)).toThrow("disposed");
});

it("other rows asked of the program end it", async () => {
  using runner = new DecoderRunner(backend, model);
  await runner.compileAhead();
  runner.provide({ hidden: true });
  expect(runner.prepare(0, { drafts: true })).toBeUndefined();
  expect(runner.appendTree(0, TreeShape.chain(1), [5, 6]).hidden).toHaveLength(64);
});

it("weights in blocks and blocks of exact decoding need no early program", async () => {
  using quantised = new DecoderRunner(backend, quantiseDecoder(model, { bits: 8 }));
  await quantised.compileAhead();
  expect(quantised.prepare(0, { drafts: true })).toBeUndefined();
  using exact = new DecoderRunner(backend, model, { exactBlock: 4 });
  await exact.compileAhead();
  expect(exact.prepare(0, { drafts: true })).toBeUndefined();
});

it("the same text with and without", async () => {
  const text = async (ahead: boolean): Promise<number[]> => {
    using runner = new DecoderRunner(backend, model);
    if (ahead) await runner.compileAhead();
    const ids: number[] = [];
    for await (const event of generate(runner, [
      { ids: Int32Array.from(prompt), maxNewTokens: 30, eosTokenIds: [], sampling: { doSample: false } },
    ]))
      if (event.kind === "token") ids.push(event.id);
    return ids;
  };
  expect(await text(true)).toEqual(await text(false));
});
