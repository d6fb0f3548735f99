// Options of Muon: its own, and those of the AdamW that updates what is no matrix.
import { z } from "zod";
import { adamwSchema } from "./rules/adam.ts";
import { epsilon, learningRate, maximize, onParameter, weightDecay } from "./update-rule.ts";

const coefficient = z.number();

export const muonSchema = z
  .strictObject({
    kind: z.literal("muon"),
    learningRate: learningRate(1e-3),
    momentum: z.number().min(0).lt(1).describe("Decay rate of the average of gradients").default(0.95),
    nesterov: z.boolean().describe("Look one step of the momentum ahead").default(true),
    weightDecay: weightDecay(0.1, onParameter),
    iterations: z.int().min(1).max(99).describe("Newton–Schulz iterations").default(5),
    coefficients: z
      .tuple([coefficient, coefficient, coefficient])
      .describe("a, b, c of the iteration X ← a X + (b G + c G²) X with G = X Xᵀ")
      .default([3.4445, -4.775, 2.0315]),
    epsilon: epsilon(1e-7).describe("Smallest norm that a matrix is divided by"),
    adjustLearningRate: z
      .enum(["original", "match-rms-adamw"])
      .describe(
        "Factor of the rate for a matrix [A, B]: sqrt(max(1, A/B)) (Jordan 2024), or 0.2 sqrt(max(A, B)), which makes rates of AdamW fit (Liu et al. 2025)",
      )
      .default("original"),
    adamwGroups: z
      .array(z.string())
      .describe("Parameter groups whose matrices AdamW updates nevertheless: embeddings and the output head, as a rule")
      .default([]),
    adamw: adamwSchema
      .pick({ beta1: true, beta2: true, epsilon: true, weightDecay: true, amsgrad: true })
      .extend({ learningRateScale: z.number().min(0).describe("Rate of AdamW as a multiple of Muon's").default(1) })
      .describe("AdamW for vectors and for adamwGroups")
      .prefault({}),
    maximize,
  })
  .describe("Momentum made orthogonal, for matrices; AdamW for the rest");

export type MuonOptions = z.output<typeof muonSchema>;
