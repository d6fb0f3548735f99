// The nested options of a decoder: how rotary positions are stretched, experts in place of MLPs, latent attention.
import { z } from "zod";

const positive = z.int().positive();
const factor = z.number().positive();

const kind = <K extends string>(name: K) => z.literal(name).describe("Which rule changes the frequencies");
const originalLength = positive.describe("Length in tokens that the model was trained with first");
const attentionFactor = z.number().positive().optional().describe("Factor of cosines and sines");

export const rotaryScalingSchema = z
  .discriminatedUnion("kind", [
    z.strictObject({ kind: kind("linear"), factor: factor.describe("Divisor of the frequencies") }),
    z.strictObject({
      kind: kind("dynamic"),
      factor: factor.describe("Growth of the base, for sequences beyond originalLength"),
      originalLength,
    }),
    z.strictObject({
      kind: kind("llama3"),
      factor: factor.describe("Divisor of the low frequencies"),
      lowFrequencyFactor: factor.describe("Turns within originalLength below which a frequency is divided"),
      highFrequencyFactor: factor.describe("Turns within originalLength above which a frequency is kept"),
      originalLength,
    }),
    z.strictObject({
      kind: kind("yarn"),
      factor: factor.describe("Divisor of the low frequencies"),
      originalLength,
      betaFast: factor.optional().describe("Turns within originalLength above which a frequency is kept. Default 32"),
      betaSlow: factor.optional().describe("Turns within originalLength below which a frequency is divided. Default 1"),
      truncate: z.boolean().optional().describe("The two bounds are rounded to whole pairs. Default true"),
      attentionFactor,
    }),
    z.strictObject({
      kind: kind("longrope"),
      shortFactors: z.array(factor).describe("Divisors of the frequencies of sequences up to originalLength"),
      longFactors: z.array(factor).describe("Divisors of the frequencies of longer sequences"),
      originalLength,
      attentionFactor,
    }),
    z.strictObject({ kind: kind("divisors"), divisors: z.array(factor).describe("Divisor of each frequency") }),
  ])
  .describe("How rotary frequencies are changed for longer sequences");

export const expertsSchema = z
  .strictObject({
    count: positive.describe("Experts of a layer, E"),
    chosen: positive.describe("Experts that a token goes through, K"),
    width: positive.describe("Inner width of an expert"),
    denseLayers: z.array(z.int().nonnegative()).default([]).describe("Layers with an MLP instead"),
    score: z.enum(["softmax", "sigmoid"]).default("softmax").describe("How the router's logits become scores"),
    normalise: z.boolean().default(true).describe("The scores of the chosen experts are divided by their sum"),
    scale: factor.default(1).describe("Factor of the weights of the chosen experts"),
    selectionBias: z.boolean().default(false).describe("A bias of the scores that counts for the choice alone (DeepSeek-V3)"),
    groups: positive.default(1).describe("Groups of experts; a token chooses groups first, by the sum of their two best scores"),
    chosenGroups: positive.default(1).describe("Groups that a token may choose experts of"),
    sharedWidth: z.int().nonnegative().default(0).describe("Inner width of an MLP that every token goes through besides; 0: none"),
    sharedGate: z.boolean().default(false).describe("The shared MLP is weighted by a sigmoid of the token (Qwen2-MoE)"),
    balanceLoss: z.number().nonnegative().default(0).describe("Factor of the load-balancing loss in training (Fedus et al. 2021, Eq. 4)"),
  })
  .describe("Experts in place of the MLP");

export const latentSchema = z
  .strictObject({
    queryRank: positive.optional().describe("Width that queries are compressed to. Default: not compressed"),
    keyValueRank: positive.describe("Width that keys and values are compressed to"),
    plainWidth: positive.describe("Features of a head without position"),
    rotaryWidth: positive.describe("Features of a head that are rotated; keys share them"),
    valueWidth: positive.describe("Width of a head's values"),
  })
  .describe("Multi-head latent attention (DeepSeek-V2, Section 2.1)");

export type ExpertOptions = z.output<typeof expertsSchema>;
export type LatentOptions = z.output<typeof latentSchema>;
