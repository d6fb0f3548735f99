// The methods by name: which advantages, which ratio and clip, how tokens are summed, where the KL goes. Each is data for policyLoss.
// Numbers are those of the papers, or of the library named where the paper has none.
import type { Aggregation } from "./aggregation.ts";
import type { PolicyLossOptions } from "./policy-loss.ts";

/**
 * reward: the reward itself; leave-one-out: against the others of the group; group: against the group's mean, scaled by `scaleRewards`;
 * batch: token returns, whitened over the batch; gae: generalised advantage estimation, which needs a critic.
 */
export type AdvantageKind = "reward" | "leave-one-out" | "group" | "batch" | "gae";

export interface PolicyPreset {
  readonly summary: string;
  readonly advantage: AdvantageKind;
  /** How group advantages are divided. */
  readonly scaleRewards?: "group" | "batch" | "none";
  readonly loss: PolicyLossOptions;
  readonly aggregation: Aggregation;
  /** Coefficient of the KL to the reference, and its place. */
  readonly kl?: { readonly beta: number; readonly place: "loss" | "reward" };
}

const ppoClip = { kind: "ppo", low: 0.2, high: 0.2 } as const;

export const policyPresets = {
  reinforce: {
    summary: "REINFORCE (Williams 1992): the reward itself times log π",
    advantage: "reward",
    loss: { clip: { kind: "log-prob" } },
    aggregation: "seq-mean-token-sum",
  },
  rloo: {
    summary: "REINFORCE leave-one-out (Ahmadian et al. 2024); KL in the reward, as in TRL",
    advantage: "leave-one-out",
    loss: { ratio: "trajectory", clip: ppoClip },
    aggregation: "seq-mean-token-mean",
    kl: { beta: 0.05, place: "reward" },
  },
  ppo: {
    summary: "PPO (Schulman et al. 2017) with dual clip as in verl; needs a critic",
    advantage: "gae",
    loss: { clip: { ...ppoClip, dual: 3 } },
    aggregation: "token-mean",
    kl: { beta: 0.05, place: "reward" },
  },
  grpo: {
    summary: "GRPO (Shao et al. 2024, DeepSeekMath)",
    advantage: "group",
    loss: { clip: ppoClip, klEstimator: "k3" },
    aggregation: "seq-mean-token-mean",
    kl: { beta: 0.04, place: "loss" },
  },
  "dr-grpo": {
    summary: "Dr. GRPO (Liu et al. 2025): no division by the std or by the length",
    advantage: "group",
    scaleRewards: "none",
    loss: { clip: ppoClip },
    aggregation: "seq-mean-token-sum-norm",
  },
  dapo: {
    summary: "DAPO (Yu et al. 2025): clip-higher, token-level loss, no KL",
    advantage: "group",
    loss: { clip: { kind: "ppo", low: 0.2, high: 0.28 } },
    aggregation: "token-mean",
  },
  gspo: {
    summary: "GSPO (Zheng et al. 2025): one ratio a sequence",
    advantage: "group",
    loss: { ratio: "sequence", clip: { kind: "ppo", low: 3e-4, high: 4e-4 } },
    aggregation: "seq-mean-token-mean",
  },
  cispo: {
    summary: "CISPO (MiniMax-M1, 2025): the ratio is clipped, the gradient of every token stays",
    advantage: "group",
    loss: { clip: { kind: "cispo", max: 5 } },
    aggregation: "token-mean",
  },
  "reinforce++": {
    summary: "REINFORCE++ (Hu 2025): token returns whitened over the batch, KL in the reward",
    advantage: "batch",
    loss: { clip: ppoClip },
    aggregation: "token-mean",
    kl: { beta: 0.01, place: "reward" },
  },
} as const satisfies Readonly<Record<string, PolicyPreset>>;

export type PolicyPresetName = keyof typeof policyPresets;
