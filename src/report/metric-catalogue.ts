// Title and unit of each metric that the recipes record, by name. TRL's names for reinforcement learning, ours for the rest.

export interface MetricInfo {
  readonly title: string;
  /** As written behind a number; a quantity without dimension says what it is. */
  readonly unit: string;
  /** Factor from the recorded value to the unit: shares become per cent. */
  readonly factor?: number;
  readonly fromZero?: boolean;
}

const percent = { unit: "%", factor: 100, fromZero: true };

const known: Readonly<Record<string, MetricInfo>> = {
  loss: { title: "Loss", unit: "nats/token" },
  emaLoss: { title: "Loss of the averaged weights", unit: "nats/token" },
  perplexity: { title: "Perplexity", unit: "per token" },
  bitsPerByte: { title: "Bits per byte", unit: "bits/byte" },
  learningRate: { title: "Learning rate", unit: "per step", fromZero: true },
  gradientNorm: { title: "Gradient norm", unit: "L2 norm" },
  tokensPerSecond: { title: "Throughput", unit: "tokens/s", fromZero: true },
  mfu: { title: "Share of the machine's peak FLOP/s", ...percent },
  epoch: { title: "Passes over the data", unit: "passes", fromZero: true },
  numTokens: { title: "Tokens evaluated", unit: "tokens", fromZero: true },
  accuracy: { title: "Next-token accuracy", ...percent },
  policyLoss: { title: "Policy loss", unit: "loss" },
  valueLoss: { title: "Value loss", unit: "loss" },
  reward: { title: "Reward", unit: "score" },
  reward_std: { title: "Reward spread", unit: "score (std)", fromZero: true },
  kl: { title: "KL to the start model", unit: "nats/token" },
  entropy: { title: "Entropy", unit: "nats/token" },
  frac_reward_zero_std: { title: "Groups of equal rewards", ...percent },
  "completions/mean_length": { title: "Completion length", unit: "tokens", fromZero: true },
  "completions/clipped_ratio": { title: "Completions cut at the limit", ...percent },
  clip_ratio: { title: "Clipped ratios", ...percent },
  // Learning from reward in environments, by Stable-Baselines3's names.
  "rollout/ep_rew_mean": { title: "Return of an episode", unit: "reward" },
  "rollout/ep_len_mean": { title: "Length of an episode", unit: "steps", fromZero: true },
  std_reward: { title: "Spread of evaluated returns", unit: "reward (std)", fromZero: true },
  approx_kl: { title: "KL of an update, estimated", unit: "nats" },
  kl_divergence_loss: { title: "KL of an update", unit: "nats", fromZero: true },
  entropy_loss: { title: "Entropy, negated", unit: "nats" },
  clip_fraction: { title: "Clipped ratios", ...percent },
  clip_range: { title: "Clip range", unit: "of the ratio", fromZero: true },
  explained_variance: { title: "Variance that the value network explains", ...percent, fromZero: false },
  is_line_search_success: { title: "Steps that were accepted", ...percent },
  std: { title: "Deviation of actions", unit: "of an action", fromZero: true },
  n_updates: { title: "Passes over rollouts", unit: "passes", fromZero: true },
  "time/fps": { title: "Pace of the run", unit: "environment steps/s", fromZero: true },
  "time/total_timesteps": { title: "Environment steps", unit: "steps", fromZero: true },
  "time/iterations": { title: "Rollouts", unit: "rollouts", fromZero: true },
  "seconds/rollouts": { title: "Time of a rollout", unit: "s", fromZero: true },
  "seconds/updates": { title: "Time of an update", unit: "s", fromZero: true },
};

const aliases: Readonly<Record<string, string>> = {
  learning_rate: "learningRate",
  lr: "learningRate",
  grad_norm: "gradientNorm",
  gradient_norm: "gradientNorm",
  "reward/mean": "reward",
  "reward/std": "reward_std",
  rewardStd: "reward_std",
  rewards: "reward",
  "kl/mean": "kl",
  "clip_ratio/region_mean": "clip_ratio",
  clipRatio: "clip_ratio",
  policy_loss: "policyLoss",
  value_loss: "valueLoss",
  bits_per_byte: "bitsPerByte",
  "completions/length": "completions/mean_length",
  completionLength: "completions/mean_length",
  completion_length: "completions/mean_length",
  mean_reward: "rollout/ep_rew_mean",
  mean_ep_length: "rollout/ep_len_mean",
};

/** One name for what is called differently; `eval_` and the like are gone, because evaluations are kept apart anyway. */
export function canonicalName(name: string): string {
  const bare = name.replace(/^(?:eval|evaluation|validation|train)[_/]/, "");
  return Object.hasOwn(aliases, bare) ? aliases[bare] : bare;
}

/** Endings from which a unit can be told. */
const endings: readonly (readonly [RegExp, Omit<MetricInfo, "title">])[] = [
  [/(?:ratio|share|frac|fraction|accuracy|mfu|rate)(?:\/|_|$)/i, percent],
  [/^frac_|_rate$|Share$/, percent],
  [/(?:seconds|_time|Seconds|step_time)$/, { unit: "s", fromZero: true }],
  [/(?:milliseconds|Ms)$/, { unit: "ms", fromZero: true }],
  [/(?:bytes|Bytes)$/, { unit: "bytes", fromZero: true }],
  [/tokens_?per_?second$/i, { unit: "tokens/s", fromZero: true }],
  [/tokens_?per_?step$/i, { unit: "tokens/step", fromZero: true }],
  [/(?:length|tokens)$/i, { unit: "tokens", fromZero: true }],
  [/(?:kl|entropy|logp_difference|nats)(?:\/|_|$)/i, { unit: "nats/token" }],
  [/loss/i, { unit: "loss" }],
  [/reward|advantage/i, { unit: "score" }],
  [/norm$/i, { unit: "L2 norm" }],
];

export function metricInfo(name: string): MetricInfo {
  const canonical = canonicalName(name);
  if (Object.hasOwn(known, canonical)) return known[canonical];
  const reward = /^rewards\/(.+?)(?:\/(mean|std))?$/.exec(canonical);
  if (reward) return { title: `Reward: ${reward[1]}${reward[2] === "std" ? " (spread)" : ""}`, unit: "score" };
  const info = endings.find(([pattern]) => pattern.test(canonical))?.[1];
  return { title: canonical, ...(info ?? { unit: "unit not recorded" }) };
}
