// One request, however it is run, is one text: alone, in a batch, with drafts, behind a prompt from disk, in small pieces; with stop strings, end
// tokens and limits wherever they fall.
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import fc from "fast-check";
import { afterAll, beforeAll, expect, it } from "vitest";
import type { Drafter } from "../../src/decode/drafter.ts";
import { LookupDrafter } from "../../src/decode/drafters/lookup.ts";
import { SuffixDrafter } from "../../src/decode/drafters/suffix.ts";
import { type FinishEvent, type GenerateOptions, type GenerationRequest, generate } from "../../src/decode/generate.ts";
import { loadPromptCache, modelFingerprint, savePromptCache } from "../../src/decode/prompt-cache.ts";
import { DecoderRunner } from "../../src/decode/runner.ts";
import { loadDecoder } from "../../src/models/decoder/checkpoint.ts";
import type { Backend } from "../../src/runtime/backend.ts";
import { openBackend } from "../../src/runtime/open.ts";
import { loadTokenizer } from "../../src/text/index.ts";

const isLong = process.env.LONGWAVE_TEST_LONG === "1";
const model = loadDecoder("assets/stories260k/stories260K.bin");
const tokenizer = loadTokenizer("assets/stories260k/tok512.bin");
const fingerprint = modelFingerprint(model);
const tale = [
  ...tokenizer.encode('Once upon a time, Tom saw a big red ball. Tom said, "Look, a big red ball!" Tom ran to the big red ball. '),
];
const capacity = 160;

let backend: Backend;
let folder: string;
beforeAll(() => {
  backend = openBackend({ threads: 1 }).backend;
  folder = mkdtempSync(join(tmpdir(), "longwave-property-"));
});
afterAll(() => {
  backend.dispose();
  rmSync(folder, { recursive: true, force: true });
});

type Told = Pick<FinishEvent, "text" | "ids" | "reason">;

/** What each request ends with; its text is that of its events. */
async function run(runner: DecoderRunner, requests: readonly GenerationRequest[], options: GenerateOptions = {}): Promise<Told[]> {
  const results: Told[] = [];
  const texts = requests.map(() => "");
  for await (const event of generate(runner, requests, { tokenizer, ...options })) {
    if (event.kind !== "finish") texts[event.request] += event.text;
    else {
      const { text, ids, reason } = event;
      expect(text).toBe(texts[event.request]);
      results[event.request] = { text, ids, reason };
    }
  }
  return results;
}

const period = tokenizer.encode(".").at(-1) as number;

const request: fc.Arbitrary<GenerationRequest> = fc
  .record({
    length: fc.integer({ min: 1, max: tale.length }),
    maxNewTokens: fc.integer({ min: 0, max: 40 }),
    stop: fc.subarray(["ball", "e big", ". ", "Tom said", "\n", "!"], { maxLength: 2 }),
    includeStop: fc.boolean(),
    sampling: fc.constantFrom(
      { doSample: false },
      { doSample: false, repetitionPenalty: 1.2 },
      { temperature: 0.7 },
      { temperature: 1, topP: 0.9 },
      { temperature: 0.9, topK: 20, dryMultiplier: 0.8 },
    ),
    ends: fc.constantFrom({ eosTokenIds: [] }, { eosTokenIds: [period] }, { eosTokenIds: [period], minNewTokens: 5 }),
    seed: fc.nat(1000),
  })
  .map(({ length, sampling, ends: { eosTokenIds, ...least }, ...rest }) => {
    return { ids: tale.slice(0, length), sampling: { ...sampling, ...least }, eosTokenIds, ...rest };
  });

const property = fc.asyncProperty(
  fc.array(request, { minLength: 1, maxLength: 4 }),
  fc.integer({ min: 1, max: 3 }),
  fc.integer({ min: 1, max: 9 }),
  fc.constantFrom("lookup", "suffix"),
  fc.double({ min: 0, max: 1, noNaN: true }),
  async (requests, batch, prefillChunk, kind, share) => {
    using alone = new DecoderRunner(backend, model, { capacity });
    const expected = await run(alone, requests);

    using together = new DecoderRunner(backend, model, { capacity, batch, prefillChunk });
    expect(await run(together, requests)).toEqual(expected);

    const drafter: Drafter = kind === "lookup" ? new LookupDrafter({ adaptive: false, numTokens: prefillChunk }) : new SuffixDrafter();
    using speculating = new DecoderRunner(backend, model, { capacity });
    expect(await run(speculating, requests, { drafter })).toEqual(expected);
    drafter.dispose();

    // What another process left on disk of the beginning of a prompt.
    const [{ ids }] = requests;
    const saved = Math.min(ids.length, Math.max(1, Math.round(share * tale.length)));
    const path = join(folder, "prompt.safetensors");
    using writer = new DecoderRunner(backend, model, { capacity, prefillChunk });
    writer.prefill(0, ids, saved);
    savePromptCache(path, writer, 0, Array.from(ids).slice(0, saved), fingerprint);
    using reader = new DecoderRunner(backend, model, { capacity });
    const { length: cachedLength } = loadPromptCache(path, reader, 0, ids, fingerprint);
    expect(cachedLength).toBe(Math.min(saved, ids.length - 1));
    expect(await run(reader, [{ ...requests[0], cachedLength }])).toEqual([expected[0]]);
  },
);

it(
  "a request has one text, however it is run",
  () => fc.assert(property, isLong ? { numRuns: 1000 } : { numRuns: 25, seed: 3 }),
  3_600_000,
);
