// Exact decoding: with blocks of one size, plain and speculative decoding of chains give the same bytes. And prompts that come back from disk.
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { loadDecoder } from "../models/decoder/checkpoint.ts";
import type { Backend } from "../runtime/backend.ts";
import { openBackend } from "../runtime/open.ts";
import { loadTokenizer } from "../text/index.ts";
import { LookupDrafter } from "./drafters/lookup.ts";
import { complete, type GenerationRequest, generate } from "./generate.ts";
import { loadPromptCache, modelFingerprint, savePromptCache } from "./prompt-cache.ts";
import { DecoderRunner } from "./runner.ts";
import { TreeShape } from "./token-tree.ts";

const stories = loadDecoder("assets/stories260k/stories260K.bin");
const tokenizer = loadTokenizer("assets/stories260k/tok512.bin");
const prompt = [...tokenizer.encode("Once upon a time there was a dog. The dog was")];
let backend: Backend;
let folder: string;
beforeAll(() => {
  backend = openBackend({ threads: 2 }).backend;
  folder = mkdtempSync(join(tmpdir(), "longwave-exact-"));
});
afterAll(() => {
  backend.dispose();
  rmSync(folder, { recursive: true });
});

describe("exact decoding", () => {
  const exactBlock = 6;
  const open = () => new DecoderRunner(backend, stories, { weights: "shared", exactBlock, capacity: 120, prefillChunk: 16 });

  test("rows do not depend on where in a block a token stands", () => {
    using runner = open();
    const start = prompt.length - 8;
    const plain = prompt.map((_, i) =>
      i < start ? undefined : Float32Array.from(runner.append(0, i === start ? prompt.slice(0, start + 1) : [prompt[i]])),
    );
    const cache = runner.cache.snapshot(0).data;
    runner.reset(0);
    runner.prefill(0, prompt, start);
    for (const [from, count] of [
      [start, 5],
      [start + 5, 3],
    ]) {
      const { logits } = runner.appendTree(0, TreeShape.chain(count - 1), prompt.slice(from, from + count));
      for (let i = 0; i < count; i++) expect(logits.subarray(i * 512, (i + 1) * 512)).toEqual(plain[from + i]);
    }
    expect(runner.cache.snapshot(0).data).toEqual(cache);
  });

  test("texts and log-probabilities are equal to the last bit, to the end of the context", async () => {
    for (const sampling of [{ doSample: false }, { temperature: 1.2 }]) {
      const request: GenerationRequest = { ids: prompt, sampling, maxNewTokens: 500, eosTokenIds: [], logProbs: 1, seed: 5 };
      const all = async (drafter?: LookupDrafter): Promise<unknown[]> => {
        using runner = open();
        const events = [];
        for await (const event of generate(runner, [request], { tokenizer, drafter }))
          events.push(event.kind === "finish" ? { ...event, speculation: undefined } : event);
        return events;
      };
      const plain = await all();
      // Up to five drafts and the root fill a block; a drafter that wants more gets no more.
      for (const numTokens of [exactBlock - 1, 16]) expect(await all(new LookupDrafter({ numTokens, adaptive: false }))).toEqual(plain);
      expect(plain.at(-1)).toMatchObject({ reason: "context" });
    }
  });

  test("cuts drafts to what a block holds", async () => {
    using runner = open();
    const sizes: number[] = [];
    const request: GenerationRequest = { ids: prompt, sampling: { doSample: false }, maxNewTokens: 60, eosTokenIds: [] };
    const drafter = new LookupDrafter({ adaptive: false });
    await complete(runner, request, { drafter, onStep: ({ tree }) => sizes.push(tree.shape.size) });
    expect(Math.max(...sizes)).toBe(exactBlock);
  });

  test("is for one sequence", () => {
    expect(() => new DecoderRunner(backend, stories, { exactBlock: 4, batch: 2 })).toThrow("batch 1");
  });
});

describe("a prompt on disk", () => {
  const fingerprint = modelFingerprint(stories);
  const saved = (): string => {
    const path = join(folder, "prompt.safetensors");
    using runner = new DecoderRunner(backend, stories, { weights: "shared" });
    runner.append(0, prompt);
    savePromptCache(path, runner, 0, prompt, fingerprint);
    return path;
  };

  test("gives the rows that were saved, as far as the prompts agree", async () => {
    const path = saved();
    using runner = new DecoderRunner(backend, stories, { weights: "shared" });
    expect(loadPromptCache(path, runner, 0, prompt, fingerprint).length).toBe(prompt.length - 1);
    const restored = Float32Array.from(runner.append(0, prompt.slice(-1)));
    using fresh = new DecoderRunner(backend, stories, { weights: "shared" });
    const expected = fresh.append(0, prompt);
    for (let i = 0; i < expected.length; i++) expect(restored[i]).toBeCloseTo(expected[i], 4);
    runner.reset(0);
    expect(loadPromptCache(path, runner, 0, [...prompt.slice(0, 5), 7, 8, 9], fingerprint).length).toBe(5);
    expect(runner.cache.lengths[0]).toBe(5);
    runner.reset(0);
    expect(loadPromptCache(path, runner, 0, [7, 8], fingerprint).length).toBe(0);
  });

  test("of another model, damaged, or no prompt at all is refused", () => {
    const path = saved();
    using runner = new DecoderRunner(backend, stories, { weights: "shared" });
    expect(() => loadPromptCache(path, runner, 0, prompt, "another")).toThrow("of this model");
    const damaged = join(folder, "damaged.safetensors");
    writeFileSync(damaged, readFileSync(path).subarray(0, -5));
    expect(() => loadPromptCache(damaged, runner, 0, prompt, fingerprint)).toThrow(/expected/);
    expect(() => savePromptCache(path, runner, 0, prompt, fingerprint)).toThrow("the 0 ids");
  });
});

test("a request that goes on from what the cache holds gives the text of a whole one", async () => {
  using runner = new DecoderRunner(backend, stories, { weights: "shared" });
  const request: GenerationRequest = { ids: prompt, sampling: { doSample: false }, maxNewTokens: 20, eosTokenIds: [] };
  const plain = await complete(runner, request);
  const longer = [...prompt, ...plain.ids.slice(0, 10)];
  const rest = { ...request, ids: longer, maxNewTokens: 10 };
  for (const drafter of [undefined, new LookupDrafter()]) {
    // The cache holds the first text, of which the second begins with all but the end.
    const { ids } = await complete(runner, { ...rest, cachedLength: longer.length - 1 }, { drafter });
    expect(ids).toEqual(plain.ids.slice(10));
    await complete(runner, request);
  }
  await expect(complete(runner, { ...rest, cachedLength: longer.length })).rejects.toThrow("cached tokens");
});
