// Counts of a benchmark do not depend on how often texts are decoded, and what texts cannot tell is not claimed.
import { afterAll, beforeAll, expect, test } from "vitest";
import { DecoderRunner, LookupDrafter, rejectionVerifier, SuffixDrafter } from "../../decode/index.ts";
import { loadDecoder } from "../../models/decoder/checkpoint.ts";
import type { Backend } from "../../runtime/backend.ts";
import { openBackend } from "../../runtime/open.ts";
import { loadTokenizer } from "../../text/index.ts";
import { type BenchDecodeOptions, type BenchRow, benchDecode } from "./bench-decode.ts";

const stories = loadDecoder("assets/stories260k/stories260K.bin");
const tokenizer = loadTokenizer("assets/stories260k/tok512.bin");
const texts = ["Once upon a time", "Tom and Lily"].map((text) => ({ task: "stories", ids: tokenizer.encode(text) }));
let backend: Backend;
beforeAll(() => {
  backend = openBackend({ threads: 1 }).backend;
});
afterAll(() => backend.dispose());

async function rowsOf(options: Pick<BenchDecodeOptions, "entries"> & Partial<BenchDecodeOptions>): Promise<readonly BenchRow[]> {
  using runner = new DecoderRunner(backend, stories, { weights: "shared" });
  const bench = benchDecode({ runner, texts, maxNewTokens: 40, eosTokenIds: [], ...options });
  let step = await bench.next();
  while (!step.done) step = await bench.next();
  return step.value.rows;
}

test("a drafter that remembers requests has not seen a text before its turn in a round", async () => {
  const entries = () => [{ name: "suffix", drafter: new SuffixDrafter({ adaptive: false }) }];
  const [once] = await rowsOf({ entries: entries(), rounds: 1 });
  const [thrice] = await rowsOf({ entries: entries(), rounds: 3 });
  // Texts come in the same order in every round.
  expect(thrice.tokensPerStep).toBeCloseTo(once.tokensPerStep, 10);
  expect(thrice).toMatchObject({ lossless: "yes", numTexts: 2, draftsPerStep: once.draftsPerStep });
});

test("samples of a lossless verifier with other draws are not called different", async () => {
  const drafter = new LookupDrafter({ adaptive: false });
  const sampling = { temperature: 1 };
  const entries = [
    { name: "drawn anew", drafter, verifier: rejectionVerifier },
    { name: "same draws", drafter },
  ];
  const rows = await rowsOf({ entries, rounds: 1, sampling });
  expect(rows.map(({ lossless }) => lossless)).toEqual(["law", "yes"]);
});
