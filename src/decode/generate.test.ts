import { readFileSync } from "node:fs";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { loadDecoder } from "../models/decoder/checkpoint.ts";
import type { Backend } from "../runtime/backend.ts";
import { openBackend } from "../runtime/open.ts";
import { loadTokenizer } from "../text/index.ts";
import { complete, type GenerationRequest, generate } from "./generate.ts";
import { DecoderRunner, type RunnerOptions } from "./runner.ts";

const golden = JSON.parse(readFileSync("test/golden/stories260k/expected.json", "utf8")) as {
  cases: { prompt: string; ids: number[]; greedy: number[]; text: string }[];
};
const model = loadDecoder("assets/stories260k/stories260K.bin");
const tokenizer = loadTokenizer("assets/stories260k/tok512.bin");
const greedy = { doSample: false } as const;

let backend: Backend;
beforeAll(() => {
  backend = openBackend({ threads: 1 }).backend;
});
afterAll(() => backend.dispose());

async function all(runner: DecoderRunner, requests: GenerationRequest[]): Promise<number[][]> {
  const results: number[][] = [];
  for await (const event of generate(runner, requests, { tokenizer })) if (event.kind === "finish") results[event.request] = event.ids;
  return results;
}

describe.each<[string, RunnerOptions]>([
  ["fused, packed weights", {}],
  ["fused, shared weights", { weights: "shared" }],
  ["fused, weights as inputs", { weights: "bound" }],
  ["composed", { emission: "composed" }],
  ["prefill in chunks of 4", { prefillChunk: 4 }],
])("stories260K, %s", (_, options) => {
  test("greedy text equals the reference implementation's", async () => {
    using runner = new DecoderRunner(backend, model, options);
    for (const { ids, greedy: expected, text, prompt } of golden.cases) {
      const result = await complete(runner, { ids, sampling: greedy, maxNewTokens: expected.length, eosTokenIds: [] }, { tokenizer });
      expect(result.ids).toEqual(expected);
      expect(`${prompt}${result.text}`.trimStart().startsWith(text.slice(0, 40))).toBe(true);
    }
  });

  test("a batch of unequal lengths gives each request its own text", async () => {
    const requests = golden.cases.map(({ ids }) => ({ ids, sampling: greedy, maxNewTokens: 60, eosTokenIds: [] }));
    const mixed = [...requests, ...requests.map((request) => ({ ...request, maxNewTokens: 25 }))];
    using runner = new DecoderRunner(backend, model, { ...options, batch: 3 });
    const results = await all(runner, mixed);
    for (const [i, ids] of results.entries()) expect(ids).toEqual(golden.cases[i % requests.length].greedy.slice(0, mixed[i].maxNewTokens));
  });
});

test("an end of sequence that sampling options leave open is that of the request", async () => {
  using runner = new DecoderRunner(backend, model);
  const { ids, greedy: expected } = golden.cases[0];
  // The third token of the text ends it, but not before the sixth.
  const request = { ids, maxNewTokens: 12, eosTokenIds: [expected[2]] };
  expect((await complete(runner, { ...request, sampling: greedy }, { tokenizer })).ids).toEqual(expected.slice(0, 2));
  const kept = await complete(runner, { ...request, sampling: { ...greedy, eosTokenId: [], minNewTokens: 6 } }, { tokenizer });
  expect(kept.ids.length).toBeGreaterThanOrEqual(6);
  expect(kept.ids.slice(0, 6)).not.toContain(expected[2]);
});
