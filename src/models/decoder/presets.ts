// Sizes of decoders as data. `vocabSize` comes from the tokenizer.
import type { DecoderOptions } from "./config.ts";

export interface DecoderPreset {
  readonly summary: string;
  readonly options: Omit<DecoderOptions, "vocabSize">;
}

export const decoderPresets = {
  nano: {
    summary: "4 layers, width 192: the quickstart, two minutes on two cores",
    options: { width: 192, layers: 4, heads: 6, kvHeads: 6, contextLength: 128 },
  },
  micro: {
    summary: "6 layers, width 256, grouped-query attention",
    options: { width: 256, layers: 6, heads: 8, kvHeads: 4, contextLength: 256 },
  },
  mini: {
    summary: "6 layers, width 384: about 11 M parameters besides the embeddings",
    options: { width: 384, layers: 6, heads: 6, kvHeads: 6, contextLength: 256 },
  },
  "smollm2-135m": {
    summary: "the shape of SmolLM2-135M: 30 layers, width 576, 9 query and 3 key/value heads",
    options: { width: 576, layers: 30, heads: 9, kvHeads: 3, mlpWidth: 1536, contextLength: 2048, rotaryBase: 100_000 },
  },
  "gpt2-124m": {
    summary: "the shape of GPT-2 small: 12 layers, width 768, learned positions, plain GELU MLP",
    options: {
      width: 768,
      layers: 12,
      heads: 12,
      contextLength: 1024,
      norm: "layer",
      position: "learned",
      mlp: "plain",
      activation: "geluTanh",
      qkvBias: true,
      outputBias: true,
      mlpBias: true,
    },
  },
} as const satisfies Record<string, DecoderPreset>;

export type DecoderPresetName = keyof typeof decoderPresets;
