// Configuration of the decoder: one schema covers the families; a preset is data.
import { z } from "zod";
import { UsageError } from "../../base/errors.ts";

const positive = z.int().positive();

export const layerKinds = ["full", "sliding"] as const;

export const decoderSchema = z
  .strictObject({
    vocabSize: positive.describe("Size of the vocabulary, V"),
    width: positive.describe("Width of the residual stream, C"),
    layers: positive.describe("Number of blocks"),
    heads: positive.describe("Query heads, H"),
    kvHeads: positive.optional().describe("Key and value heads; fewer than heads is grouped-query attention. Default: heads"),
    headWidth: positive.optional().describe("Width of a head, D. Default: width / heads"),
    mlpWidth: positive.optional().describe("Inner width of the MLP. Default: 4 x width, or 8/3 x width rounded up to 32 when gated"),
    contextLength: positive.default(256).describe("Longest sequence the model is trained for"),
    norm: z.enum(["layer", "rms"]).default("rms").describe("Layer norm or RMS norm"),
    normEpsilon: z.number().positive().default(1e-5).describe("Added to the variance or mean square"),
    normPlace: z
      .enum(["before", "after"])
      .default("before")
      .describe("Norm before each sublayer, or on its output before the residual sum"),
    position: z.enum(["rotary", "learned", "none"]).default("rotary").describe("Position information"),
    rotaryBase: z.number().positive().default(10_000).describe("Base of the rotary wavelengths"),
    rotaryFraction: z.number().positive().max(1).default(1).describe("Share of a head's features that is rotated"),
    noRotaryLayers: z.array(z.int().nonnegative()).default([]).describe("Layers without rotary positions"),
    qkNorm: z
      .enum(["none", "head", "projection"])
      .default("none")
      .describe("RMS norm of queries and keys, per head or over the whole projection"),
    qkvBias: z.boolean().default(false).describe("Biases on query, key and value"),
    outputBias: z.boolean().default(false).describe("Bias on the attention output"),
    mlp: z.enum(["gated", "plain"]).default("gated").describe("Gated (act(gate) x up) or plain MLP"),
    mlpBias: z.boolean().default(false).describe("Biases in the MLP"),
    activation: z.enum(["silu", "gelu", "geluTanh", "relu", "squaredRelu"]).default("silu").describe("Activation of the MLP"),
    tieEmbeddings: z.boolean().default(true).describe("The output matrix is the token embedding"),
    embeddingScale: z.number().positive().default(1).describe("Factor of the token embeddings"),
    attentionScale: z.number().positive().optional().describe("Factor of the attention scores. Default 1/sqrt(headWidth)"),
    attentionSoftCap: z.number().nonnegative().default(0).describe("Attention scores limited to +-cap by tanh; 0: none"),
    logitSoftCap: z.number().nonnegative().default(0).describe("Logits limited to +-cap by tanh; 0: none"),
    window: positive.optional().describe("Keys that a query of a sliding layer sees, itself included"),
    layerTypes: z
      .array(z.enum(layerKinds))
      .optional()
      .describe("Attention kind of each layer. Default: sliding everywhere when a window is given, else full"),
    initStd: z.number().positive().default(0.02).describe("Standard deviation of initial weights (GPT-2: 0.02)"),
    scaleResidualInit: z.boolean().default(true).describe("Divide the std of residual projections by sqrt(2 x layers) (GPT-2)"),
  })
  .describe("Decoder-only transformer");

export type DecoderOptions = z.input<typeof decoderSchema>;

/** All sizes filled in and checked against each other. */
export interface DecoderConfig extends z.output<typeof decoderSchema> {
  kvHeads: number;
  headWidth: number;
  mlpWidth: number;
  attentionScale: number;
  layerTypes: (typeof layerKinds)[number][];
}

/** Fills in defaults and checks that the sizes fit. @throws UsageError naming the option. */
export function decoderConfig(options: DecoderOptions): DecoderConfig {
  const result = decoderSchema.safeParse(options);
  if (!result.success) {
    const [issue] = result.error.issues;
    throw new UsageError(`model.${issue.path.join(".")}: ${issue.message}`, {
      hint: "See `longwave pretrain --help` for the options of a model.",
    });
  }
  const config = result.data;
  const kvHeads = config.kvHeads ?? config.heads;
  const headWidth = config.headWidth ?? config.width / config.heads;
  const gatedWidth = Math.ceil((8 * config.width) / 3 / 32) * 32;
  const mlpWidth = config.mlpWidth ?? (config.mlp === "gated" ? gatedWidth : 4 * config.width);
  const layerTypes =
    config.layerTypes ?? Array.from({ length: config.layers }, () => (config.window ? ("sliding" as const) : ("full" as const)));
  const fail = (message: string, hint: string): never => {
    throw new UsageError(message, { hint });
  };
  if (!Number.isInteger(headWidth))
    fail(`model.width: expected a multiple of heads (${config.heads}), got ${config.width}`, "Change width or heads, or give headWidth.");
  if (config.heads % kvHeads !== 0)
    fail(
      `model.kvHeads: expected a divisor of heads (${config.heads}), got ${kvHeads}`,
      "Use heads / 2, / 4 … for grouped-query attention.",
    );
  const rotated = headWidth * config.rotaryFraction;
  if (config.position === "rotary" && (!Number.isInteger(rotated) || rotated % 2 !== 0)) {
    fail(`model.headWidth: expected an even number of rotated features, got ${rotated}`, "Choose an even head width.");
  }
  if (layerTypes.length !== config.layers)
    fail(`model.layerTypes: expected ${config.layers} entries, got ${layerTypes.length}`, "Give one kind for each layer.");
  if (layerTypes.includes("sliding") && config.window === undefined)
    fail("model.window: expected a size for the sliding layers, got none", "Set window.");
  return { ...config, kvHeads, headWidth, mlpWidth, layerTypes, attentionScale: config.attentionScale ?? 1 / Math.sqrt(headWidth) };
}
