// Configuration of the decoder: one schema covers the families; a preset is data.
import { z } from "zod";
import { UsageError } from "../../base/errors.ts";
import type { RotaryOptions } from "../../nn/rotary.ts";
import { expertsSchema, latentSchema, rotaryScalingSchema } from "./options.ts";

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
      .enum(["before", "after", "both"])
      .default("before")
      .describe("Norm before each sublayer, on its output before the residual sum, or both"),
    position: z.enum(["rotary", "learned", "none"]).default("rotary").describe("Position information"),
    rotaryBase: z.number().positive().default(10_000).describe("Base of the rotary wavelengths"),
    rotaryScaling: rotaryScalingSchema.optional(),
    slidingRotaryBase: z.number().positive().optional().describe("Base in sliding layers, unscaled. Default: as in the others"),
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
    experts: expertsSchema.optional(),
    latent: latentSchema.optional(),
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
  const { latent, experts } = config;
  // Keys and values of one width serve every kernel: the narrower ones are padded.
  const latentWidth = latent && Math.max(latent.plainWidth + latent.rotaryWidth, latent.valueWidth);
  const headWidth = latentWidth ?? config.headWidth ?? config.width / config.heads;
  const rotaryFraction = latent ? latent.rotaryWidth / headWidth : config.rotaryFraction;
  const gatedWidth = Math.ceil((8 * config.width) / 3 / 32) * 32;
  // Where every layer has experts nothing has this width.
  const mlpWidth =
    (experts?.denseLayers.length === 0 ? experts.width : undefined) ??
    config.mlpWidth ??
    (config.mlp === "gated" ? gatedWidth : 4 * config.width);
  const layerTypes =
    config.layerTypes ?? Array.from({ length: config.layers }, () => (config.window ? ("sliding" as const) : ("full" as const)));
  const fail = (message: string, hint: string): never => {
    throw new UsageError(message, { hint });
  };
  if (!Number.isInteger(headWidth))
    fail(
      `model.width: expected a multiple of model.heads (${config.heads}), got ${config.width}`,
      "Change model.width or model.heads, or give model.headWidth.",
    );
  if (config.heads % kvHeads !== 0)
    fail(
      `model.kvHeads: expected a divisor of model.heads (${config.heads}), got ${kvHeads}`,
      "Use model.heads / 2, / 4 … for grouped-query attention.",
    );
  const rotated = rotaryWidth({ headWidth, rotaryFraction });
  if (config.position === "rotary" && rotated % 2 !== 0) {
    fail(`model.headWidth: expected an even number of rotated features, got ${rotated}`, "Choose an even head width.");
  }
  const scaling = config.rotaryScaling;
  const lists =
    scaling?.kind === "longrope" ? [scaling.shortFactors, scaling.longFactors] : scaling?.kind === "divisors" ? [scaling.divisors] : [];
  for (const { length } of lists)
    if (length !== rotated / 2)
      fail(
        `model.rotaryScaling: expected ${rotated / 2} factors, one a pair of rotated features, got ${length}`,
        "The list belongs to another model.",
      );
  if (latent && (config.position !== "rotary" || kvHeads !== config.heads || config.qkNorm !== "none" || config.qkvBias))
    fail(
      "model.latent: expected rotary positions, as many key/value heads as heads, no qkNorm and no qkvBias, got something else",
      "Leave them out.",
    );
  if (experts) checkExperts(config.mlp, experts, fail);
  if (layerTypes.length !== config.layers)
    fail(`model.layerTypes: expected ${config.layers} entries, got ${layerTypes.length}`, "Give one kind for each layer.");
  if (layerTypes.includes("sliding") && config.window === undefined)
    fail("model.window: expected a size for the sliding layers, got none", "Set model.window.");
  const keyWidth = latent ? latent.plainWidth + latent.rotaryWidth : headWidth;
  const attentionScale = config.attentionScale ?? 1 / Math.sqrt(keyWidth);
  return { ...config, kvHeads, headWidth, rotaryFraction, mlpWidth, layerTypes, attentionScale };
}

function checkExperts(
  mlp: "gated" | "plain",
  { count, chosen, groups, chosenGroups, sharedWidth, sharedGate }: NonNullable<DecoderConfig["experts"]>,
  fail: (message: string, hint: string) => never,
): void {
  if (mlp !== "gated") fail("model.experts: expected mlp gated, got plain", "Experts are gated MLPs.");
  if (count % groups !== 0)
    fail(`model.experts.groups: expected a divisor of ${count} experts, got ${groups}`, "Groups are equally large.");
  if (chosenGroups > groups) fail(`model.experts.chosenGroups: expected at most ${groups}, got ${chosenGroups}`, "Choose fewer groups.");
  const open = (count / groups) * chosenGroups;
  if (chosen > open) fail(`model.experts.chosen: expected at most ${open}, got ${chosen}`, "Choose fewer experts.");
  if (groups > 1 && count / groups < 2) fail("model.experts.groups: expected two experts a group or more, got one", "Use fewer groups.");
  if (sharedGate && sharedWidth === 0) fail("model.experts.sharedGate: expected a sharedWidth, got none", "Set sharedWidth.");
}

/** Rotated features of a head. */
export const rotaryWidth = ({ headWidth, rotaryFraction }: Pick<DecoderConfig, "headWidth" | "rotaryFraction">): number =>
  Math.floor(headWidth * rotaryFraction + 1e-9);

/** Rotary positions of one layer; layers of one kind share them. */
export function rotaryOptions(config: DecoderConfig, layer: number): RotaryOptions {
  const width = rotaryWidth(config);
  if (config.slidingRotaryBase !== undefined && config.layerTypes[layer] === "sliding") return { base: config.slidingRotaryBase, width };
  return { base: config.rotaryBase, width, scaling: config.rotaryScaling };
}

/** Whether a layer has experts in place of its MLP. */
export const hasExperts = ({ experts }: DecoderConfig, layer: number): boolean =>
  experts !== undefined && !experts.denseLayers.includes(layer);
