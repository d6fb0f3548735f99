// What other libraries and tools call the options of ours, for the hint of an unknown name. An entry counts where a command or an object has
// the option that it stands for.

/** Letters and digits in lower case: n_steps, --n-steps and nSteps are one name. */
const plain = (name: string): string => name.toLowerCase().replaceAll(/[^a-z0-9]/g, "");

const namesElsewhere: Readonly<Record<string, readonly string[]>> = {
  // Stable-Baselines3, rl-zoo and CleanRL
  numSteps: ["n_steps", "rollout_steps"],
  numEnvs: ["n_envs"],
  numEpochs: ["n_epochs", "update_epochs"],
  steps: ["total_timesteps", "n_timesteps", "max_steps", "iters"],
  entropyCoefficient: ["ent_coef"],
  valueCoefficient: ["vf_coef"],
  clipRange: ["clip_coef", "cliprange"],
  clipRangeValue: ["clip_range_vf"],
  hidden: ["net_arch"],
  activation: ["activation_fn"],
  orthogonal: ["ortho_init"],
  optimizerEpsilon: ["rms_prop_eps", "adam_eps"],
  normalizeAdvantage: ["norm_adv"],
  lineSearchMaxIterations: ["line_search_max_iter"],
  numCriticUpdates: ["n_critic_updates"],
  env: ["env_id"],
  envOptions: ["env_kwargs"],
  evaluationEpisodes: ["n_eval_episodes"],
  // transformers, TRL and PyTorch
  batchSize: ["per_device_train_batch_size", "train_batch_size"],
  accumulate: ["gradient_accumulation_steps"],
  learningRate: ["lr"],
  maxGradNorm: ["clip_grad_norm", "grad_clip"],
  maxGradientNorm: ["max_grad_norm", "clip_grad_norm", "grad_clip"],
  epochs: ["num_train_epochs"],
  sequenceLength: ["block_size", "max_seq_length", "seq_len"],
  evaluateEvery: ["eval_steps", "eval_interval", "eval_freq"],
  checkpointEvery: ["save_steps", "save_freq"],
  numGenerations: ["group_size"],
  maxCompletionLength: ["max_new_tokens", "response_length"],
  maxNewTokens: ["max_completion_length", "n_predict", "predict", "max_tokens", "max_gen_len"],
  // llama.cpp
  temperature: ["temp"],
  context: ["ctx_size", "n_ctx", "max_model_len", "max_seq_length", "max_seq_len"],
  repetitionPenalty: ["repeat_penalty"],
  typicalP: ["typical"],
  jsonSchema: ["json_schema_file"],
  grammar: ["grammar_file"],
  speculate: ["model_draft", "md", "draft_model", "assistant_model"],
  threads: ["n_threads"],
};

/** The options that have other names, for a test that they exist. */
export const knownElsewhere: readonly string[] = Object.keys(namesElsewhere);

const byName = new Map<string, string[]>();
for (const [ours, others] of Object.entries(namesElsewhere))
  for (const name of others.map(plain)) byName.set(name, [...(byName.get(name) ?? []), ours]);

/** The option among `names` that is called `name` elsewhere. */
export function calledElsewhere(name: string, names: readonly string[]): string | undefined {
  const last = name.replace(/^-+/, "").split(".").at(-1) ?? name;
  return byName.get(plain(last))?.find((ours) => names.includes(ours));
}
