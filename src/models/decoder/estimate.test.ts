// Counts against those that can be done by hand, or that are published.
import { expect, test } from "vitest";
import { decoderConfig } from "./config.ts";
import { estimateDecoder } from "./estimate.ts";
import { decoderPresets } from "./presets.ts";

test("published sizes: SmolLM2-135M and GPT-2", () => {
  const smollm = estimateDecoder(decoderConfig({ ...decoderPresets["smollm2-135m"].options, vocabSize: 49_152 }));
  expect(smollm.parameters).toBe(134_515_008);
  expect(smollm.activeParameters).toBe(smollm.parameters);
  expect(estimateDecoder(decoderConfig({ ...decoderPresets["gpt2-124m"].options, vocabSize: 50_257 })).parameters).toBe(124_439_808);
});

test("a mixture of experts: Mixtral 8x7B", () => {
  const mixtral = estimateDecoder(
    decoderConfig({
      vocabSize: 32_000,
      width: 4096,
      layers: 32,
      heads: 32,
      kvHeads: 8,
      mlpWidth: 14_336,
      contextLength: 32_768,
      tieEmbeddings: false,
      experts: { count: 8, chosen: 2, width: 14_336 },
    }),
    1,
  );
  expect(mixtral.parameters).toBe(46_702_792_704);
  // Jiang et al. 2024: 13 B active.
  expect(mixtral.activeParameters / 1e9).toBeCloseTo(12.9, 1);
  // Two operations for each weight that a token meets but the embedding, of which one row is read, and the norms, which are no matrices.
  const norms = 65 * 4096;
  const attention = 32 * 4 * 4096 * 0.5;
  expect(mixtral.forwardFlopsPerToken).toBe(2 * (mixtral.activeParameters - 32_000 * 4096 - norms) + attention);
});
