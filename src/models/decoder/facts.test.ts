import { expect, test } from "vitest";
import { decoderConfig } from "./config.ts";
import { decoderFacts } from "./facts.ts";

const small = { vocabSize: 17, width: 16, layers: 4, heads: 4, kvHeads: 2, mlpWidth: 24, contextLength: 8 };

test("a Gemma-like decoder", () => {
  const config = decoderConfig({
    ...small,
    normPlace: "both",
    qkNorm: "head",
    window: 6,
    layerTypes: ["sliding", "sliding", "full", "sliding"],
    rotaryBase: 1e6,
    slidingRotaryBase: 1e4,
    rotaryScaling: { kind: "linear", factor: 8 },
    embeddingScale: 4,
    logitSoftCap: 30,
    activation: "geluTanh",
  });
  expect(Object.fromEntries(decoderFacts(config))).toEqual({
    attention: "4 heads of 4, 2 for keys and values, window of 6 in 3 of 4 layers, norm of queries and keys by head",
    positions: "rotary, base 1,000,000, base 10,000 in sliding layers, linear x 8",
    "feed forward": "gated, geluTanh, width 24",
    norms: "rms, before and after each sublayer",
    output: "the token embedding, logits capped at 30, embeddings x 4",
  });
});

test("a DeepSeek-like decoder", () => {
  const config = decoderConfig({
    ...small,
    kvHeads: 4,
    tieEmbeddings: false,
    latent: { queryRank: 6, keyValueRank: 5, plainWidth: 4, rotaryWidth: 2, valueWidth: 3 },
    rotaryScaling: { kind: "yarn", factor: 40, originalLength: 4096 },
    experts: { count: 4, chosen: 1, width: 8, denseLayers: [0], score: "sigmoid", groups: 2, sharedWidth: 8 },
  });
  const facts = Object.fromEntries(decoderFacts(config));
  expect(facts).toMatchObject({
    attention: "latent, 4 heads of 4 + 2, values of 3, compressed to 6 and 5",
    positions: "rotary, base 10,000, yarn x 40 beyond 4,096 tokens",
    "feed forward":
      "4 experts of width 8, 1 a token by sigmoid, from 1 of 2 groups, and one of width 8 for all tokens, a plain MLP (gated, silu, width 24) in layers 0",
    output: "a matrix of its own",
  });
  expect(facts.active).toMatch(/^[\d,]+ parameters a token$/);
});
