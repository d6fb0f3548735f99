// The methods of core/presets.ts that need no critic, as settings of group policy optimisation. Numbers of the papers, except for
// learning rate, lengths and batch sizes, which belong to the model and the task.
import type { GroupPolicyOptions } from "./options.ts";

export interface TextPreset {
  readonly summary: string;
  readonly values: GroupPolicyOptions;
}

export const groupPolicyPresets = {
  grpo: {
    summary: "GRPO as in DeepSeekMath: beta 0.04, mean over each completion",
    values: { lossType: "grpo", beta: 0.04 },
  },
  "dr-grpo": {
    summary: "Dr. GRPO: no division by std or length",
    values: { lossType: "dr_grpo", scaleRewards: "none" },
  },
  dapo: {
    summary: "DAPO: clip-higher, token-level loss, groups without differences replaced",
    values: { lossType: "dapo", epsilonHigh: 0.28, dynamicSampling: 3, maskTruncatedCompletions: true },
  },
  gspo: {
    summary: "GSPO: one ratio a completion, tight clip, four updates a rollout",
    values: { lossType: "grpo", importanceSamplingLevel: "sequence", epsilon: 3e-4, epsilonHigh: 4e-4, minibatches: 4 },
  },
  cispo: {
    summary: "CISPO: the ratio is clipped, every token keeps its gradient",
    values: { lossType: "cispo", epsilonHigh: 5 },
  },
  rloo: {
    summary: "RLOO: leave-one-out baseline, one ratio of the whole completion, KL in the reward",
    values: {
      advantage: "leave-one-out",
      lossType: "grpo",
      importanceSamplingLevel: "trajectory",
      beta: 0.05,
      klPlace: "reward",
      klEstimator: "k1",
    },
  },
  reinforce: {
    summary: "REINFORCE: the reward itself times the log-probability",
    values: { advantage: "reward", lossType: "reinforce" },
  },
  "reinforce++": {
    summary: "REINFORCE++: token returns whitened over the batch, KL in the reward",
    values: { advantage: "batch", lossType: "bnpo", beta: 0.01, klPlace: "reward", klEstimator: "k1" },
  },
} as const satisfies Readonly<Record<string, TextPreset>>;

export type GroupPolicyPresetName = keyof typeof groupPolicyPresets;
