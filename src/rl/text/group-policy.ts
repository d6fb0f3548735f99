// Group policy optimisation of a decoder (GRPO, Shao et al. 2024, and its relatives): prompts → completions → rewards → advantages →
// updates of the policy loss. One step is one rollout with all its updates. A step is a function of the weights, the optimiser, the seed
// and the step's place in the prompts, so that a resumed run repeats it bit for bit.
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { z } from "zod";
import { AbortedError } from "../../base/errors.ts";
import { parseOptions } from "../../base/schema.ts";
import {
  checkTrainerState,
  createModelOptimizer,
  deriveSeed,
  type JsonRecord,
  type Metrics,
  restoreTrainerState,
  type StepResult,
  saveTrainerState,
  type Trainable,
} from "../../engine/index.ts";
import { loadDecoder, saveDecoder } from "../../models/decoder/checkpoint.ts";
import { createSchedule, type Optimizer } from "../../optim/index.ts";
import type { Backend } from "../../runtime/backend.ts";
import type { TensorBuffer } from "../../runtime/buffer.ts";
import { allocateFlat, type FlatBuffer } from "../../runtime/flat.ts";
import { klDivergenceOf } from "../core/kl.ts";
import { weightedSums } from "../core/reward-advantages.ts";
import { standardErrorOf } from "../core/statistics.ts";
import { fillAdvantages, groupStds, rowsOf, type Sample } from "./experience.ts";
import type { PolicyRow } from "./grid.ts";
import { rolloutMetrics } from "./metrics.ts";
import { checkSettings, type GroupPolicyOptions, type GroupPolicySettings, groupPolicySchema } from "./options.ts";
import { checkPrompts, type Prompt, PromptOrder } from "./prompts.ts";
import { type Reward, type RewardInput, type RewardSample, type RewardTable, resolveRewards, scoreSamples } from "./rewards.ts";
import type { PolicyDecoder } from "./rollout-programs.ts";
import { Rollouts } from "./rollouts.ts";
import { keepHighEntropy, PolicyUpdates } from "./updates.ts";

export interface GroupPolicyData {
  readonly prompts: readonly Prompt[];
  /** Prompts of evaluations, never trained on. */
  readonly heldOut?: readonly Prompt[];
  readonly rewards: readonly RewardInput[];
  /** Text of a completion of a prompt. */
  readonly textOf: (prompt: Prompt, completionIds: Int32Array) => string;
  /** Ids that end a completion. */
  readonly endTokenIds: readonly number[];
}

export interface GroupPolicyHooks {
  /** Stops rollouts and the wait for rewards at once; the step is then as if it had not begun. Without it a step always ends. */
  signal?: AbortSignal;
  /** More files for a checkpoint directory (tokenizer, generation_config.json). */
  saveExtras?: (directory: string) => void;
  /** Extra fields of config.json. */
  configFields?: Readonly<Record<string, unknown>>;
}

const stateSchema = z.object({ place: z.int().nonnegative(), numTokens: z.int().nonnegative() });

export class GroupPolicyTrainer implements Trainable {
  readonly decoder: PolicyDecoder;
  readonly options: GroupPolicySettings;
  readonly #data: GroupPolicyData;
  readonly #rewards: readonly Reward[];
  readonly #hooks: GroupPolicyHooks;
  readonly #seed: number;
  readonly #order: PromptOrder;
  readonly #rollouts: Rollouts;
  readonly #updates: PolicyUpdates;
  readonly #optimizer: Optimizer;
  readonly #schedule: (step: number) => number;
  /** Weights that the KL is to: those of the start, unless they are synchronised. */
  readonly #reference: FlatBuffer<unknown> | undefined;
  /** Prompts read so far, and tokens of prompts and completions. */
  #place = 0;
  #numTokens = 0;
  /** Of the last step: what `sample` shows and `dump` writes. */
  #last: { samples: readonly Sample[]; rows: readonly PolicyRow[] } | undefined;

  /**
   * @param options.totalSteps of the whole run: the schedule's length.
   * @throws UsageError for settings, prompts and rewards that do not fit each other or the model.
   */
  constructor(
    backend: Backend,
    decoder: PolicyDecoder,
    data: GroupPolicyData,
    options: GroupPolicyOptions & { totalSteps: number; seed?: number },
    hooks: GroupPolicyHooks = {},
  ) {
    const { totalSteps, seed = 0, ...given } = options;
    this.options = parseOptions(groupPolicySchema, given);
    const settings = this.options;
    checkSettings(settings);
    this.decoder = decoder;
    this.#data = data;
    this.#hooks = hooks;
    this.#seed = seed;
    this.#rewards = resolveRewards(data.rewards);
    weightedSums([new Float64Array(this.#rewards.length)], settings.rewardWeights);
    const { contextLength } = decoder.config;
    checkPrompts(data.prompts, contextLength);
    if (data.heldOut) checkPrompts(data.heldOut, contextLength, "held-out prompts");
    const longest = Math.max(...[...data.prompts, ...(data.heldOut ?? [])].map(({ ids }) => ids.length));
    this.#order = new PromptOrder(data.prompts.length, deriveSeed(seed, "prompts"));
    const { numGenerations, maxCompletionLength, temperature, topK, topP, minP, rolloutRows } = settings;
    this.#rollouts = new Rollouts(backend, decoder, {
      numGenerations,
      maxNewTokens: maxCompletionLength,
      maxPromptLength: longest,
      temperature,
      endTokenIds: data.endTokenIds,
      maxRows: rolloutRows,
      topK,
      topP,
      minP,
    });
    const columns = Math.min(maxCompletionLength, contextLength - 1);
    this.#updates = new PolicyUpdates(backend, decoder, settings, { columns, time: Math.min(contextLength, longest + columns) - 1 });
    const numRows = settings.promptsPerStep * numGenerations;
    const microRows = this.#updates.microBatchOf(this.#updates.minibatchRows(numRows));
    const target = this.#updates.gradientsFor(Math.ceil(this.#updates.minibatchRows(numRows) / microRows));
    this.#optimizer = createModelOptimizer(backend, decoder, target, settings.optimizer);
    this.#schedule = createSchedule(settings.schedule, { totalSteps });
    if (settings.beta > 0 || data.heldOut) this.#reference = copyOf(decoder);
  }

  async step(index: number): Promise<StepResult> {
    const { learningRate, syncReferenceEvery, syncReferenceMixup, promptsPerStep } = this.options;
    const clock = new Clock();
    const { samples, table, place, dropped } = await this.#collect(index, clock);
    const rows = rowsOf(samples, this.options);
    await this.#prepare(rows);
    fillAdvantages(rows, table, this.options);
    this.#last = { samples, rows };
    const rate = learningRate * this.#schedule(index);
    const { metrics, skipped } = await this.#updates.run(rows, this.#optimizer, rate, deriveSeed(this.#seed, "minibatches", index));
    this.#place = place;
    const tokens = rows.reduce((sum, { promptIds, completion }) => sum + promptIds.length + completion.ids.length, 0);
    this.#numTokens += tokens;
    if (this.options.beta > 0 && syncReferenceEvery > 0 && (index + 1) % syncReferenceEvery === 0)
      mix(this.#reference as FlatBuffer<unknown>, this.decoder.parameters, syncReferenceMixup);
    clock.lap("updates");
    return {
      metrics: {
        ...metrics,
        ...rolloutMetrics(samples, table.names, this.options.numGenerations),
        "advantages/abs_mean": meanAbsolute(rows),
        num_tokens: this.#numTokens,
        epoch: this.#place / this.#data.prompts.length,
        ...(this.options.dynamicSampling > 0 ? { "dynamic_sampling/dropped": dropped / (dropped + promptsPerStep) } : {}),
        ...failures(table),
        ...clock.laps,
      },
      tokens,
      skipped,
    };
  }

  /** Mean reward on the held-out prompts, its standard error over prompts, and the KL to the start. The same random numbers every time. */
  async evaluate(): Promise<Metrics> {
    const { heldOut } = this.#data;
    if (!heldOut) return {};
    const { evaluationGenerations } = this.options;
    const { samples, table } = await this.#complete(heldOut, deriveSeed(this.#seed, "evaluation"), evaluationGenerations);
    const perPrompt = heldOut.map((_, p) => {
      const rewards = samples.slice(p * evaluationGenerations, (p + 1) * evaluationGenerations).map(({ reward }) => reward);
      return rewards.reduce((sum, reward) => sum + (Number.isNaN(reward) ? 0 : reward), 0) / rewards.length;
    });
    return {
      ...rolloutMetrics(samples, table.names, evaluationGenerations),
      reward_stderr: standardErrorOf(perPrompt),
      ...(await this.#distance(samples)),
    };
  }

  /** Rows of the last step, for a table. */
  sample(): JsonRecord[] {
    if (!this.#last) return [];
    const { samples, rows } = this.#last;
    return samples.slice(0, this.options.sampleRows).map((sample, i) => recordOf(sample, rows[i], this.#rewards));
  }

  /** config.json, model.safetensors and the hooks' files; trainer.safetensors with the optimiser and a reference that moves. */
  save(directory: string): void {
    saveDecoder(directory, this.decoder, { fields: this.#hooks.configFields });
    this.#hooks.saveExtras?.(directory);
    saveTrainerState(directory, this.#state());
  }

  state(): JsonRecord {
    return { place: this.#place, numTokens: this.#numTokens };
  }

  restore(directory: string, state: JsonRecord): void {
    const origin = ["a place in the prompts", "a run of group policy optimisation"] as const;
    const { place, numTokens } = checkTrainerState(stateSchema, state, directory, origin);
    const { parameters: saved } = loadDecoder(directory);
    restoreTrainerState(directory, { live: this.decoder.parameters, saved, buffers: this.#state() });
    this.#place = place;
    this.#numTokens = numTokens;
  }

  /** step.json (completions, rewards, advantages, log-probabilities) and the weights, as a model folder. */
  dump(directory: string): void {
    const { samples = [], rows = [] } = this.#last ?? {};
    const told = samples.map((sample, i) => ({
      ...recordOf(sample, rows[i], this.#rewards),
      promptIds: Array.from(sample.prompt.ids),
      completionIds: Array.from(sample.completion.ids),
      logProbs: Array.from(sample.completion.logProbs),
      oldLogProbs: Array.from(rows[i].oldLogProbs),
      advantages: Array.from(rows[i].advantages),
    }));
    writeFileSync(join(directory, "step.json"), JSON.stringify({ place: this.#place, samples: told }));
    saveDecoder(directory, this.decoder, { fields: this.#hooks.configFields });
    this.#hooks.saveExtras?.(directory);
  }

  dispose(): void {
    this.#rollouts.dispose();
    this.#updates.dispose();
    this.#optimizer.dispose();
  }

  [Symbol.dispose](): void {
    this.dispose();
  }

  /** Samples of a step; with dynamic sampling groups that differ in their rewards, as far as they can be found. */
  async #collect(index: number, clock: Clock) {
    const { promptsPerStep, numGenerations, dynamicSampling } = this.options;
    const kept: Collected = { samples: [], values: [] };
    const idle: Collected = { samples: [], values: [] };
    const needed = promptsPerStep * numGenerations;
    let place = this.#place;
    let dropped = 0;
    let numFailures: number[] = [];
    let names: readonly string[] = [];
    let weights: readonly number[] = [];
    for (let round = 0; round <= dynamicSampling && kept.samples.length < needed; round++) {
      const prompts = Array.from({ length: promptsPerStep }, (_, i) => this.#data.prompts[this.#order.at(place + i)]);
      place += promptsPerStep;
      const { samples, table } = await this.#complete(
        prompts,
        deriveSeed(this.#seed, "rollouts", index * 64 + round),
        numGenerations,
        clock,
      );
      numFailures = table.numFailures.map((count, k) => count + (numFailures[k] ?? 0));
      ({ names, weights } = table);
      for (const [g, std] of groupStds(samples, numGenerations).entries()) {
        const [start, end] = [g * numGenerations, (g + 1) * numGenerations];
        const isKept = dynamicSampling === 0 || std > 1e-8;
        const target = isKept && kept.samples.length < needed ? kept : idle;
        if (!isKept) dropped++;
        target.samples.push(...samples.slice(start, end));
        target.values.push(...table.values.slice(start, end));
      }
    }
    // Where too few were found, groups without differences fill the batch up: they teach nothing.
    const missing = needed - kept.samples.length;
    const samples = [...kept.samples, ...idle.samples.slice(0, missing)];
    const values = [...kept.values, ...idle.values.slice(0, missing)];
    return { samples, table: { names, weights, values, numFailures } satisfies RewardTable, place, dropped };
  }

  /** Completions of some prompts with their rewards. */
  async #complete(
    prompts: readonly Prompt[],
    seed: number,
    numGenerations: number,
    clock?: Clock,
  ): Promise<{ samples: Sample[]; table: RewardTable }> {
    const { rewardTimeout, rewardErrors, rewardWeights } = this.options;
    const { signal } = this.#hooks;
    const completions = await this.#rollouts.run(
      prompts.map(({ ids }) => ids),
      seed,
      { numGenerations, signal },
    );
    clock?.lap("rollouts");
    const flat = completions.flatMap((group, p) =>
      group.map((completion) => ({ prompt: prompts[p], completion, text: this.#data.textOf(prompts[p], completion.ids) })),
    );
    const given = flat.map(
      ({ prompt, completion, text }): RewardSample => ({
        ...prompt.columns,
        prompt: prompt.text,
        completion: text,
        completionIds: Array.from(completion.ids),
        isComplete: completion.finish === "end",
      }),
    );
    const scored = await scoreSamples(this.#rewards, given, { timeoutSeconds: rewardTimeout, onError: rewardErrors }, signal);
    if (signal?.aborted) throw new AbortedError("group policy step: aborted", { cause: signal.reason });
    const table: RewardTable = { ...scored, weights: rewardWeights ?? scored.weights };
    const sums = weightedSums(table.values, table.weights);
    const samples = flat.map((sample, i): Sample => ({ ...sample, rewards: table.values[i], reward: sums[i] }));
    clock?.lap("rewards");
    return { samples, table };
  }

  /** Log-probabilities of the old policy and the reference, entropies: what the loss of this step needs beside the rollout. */
  async #prepare(rows: readonly PolicyRow[]): Promise<void> {
    const { oldLogProbs, topEntropyQuantile } = this.options;
    const isRecomputed = oldLogProbs === "recomputed" || (oldLogProbs === "auto" && this.#updates.needsOldLogProbs);
    if (isRecomputed || topEntropyQuantile < 1) {
      const { logProbs, entropies } = await this.#updates.score(rows, this.decoder.parameters as FlatBuffer<unknown>);
      for (const [i, row] of rows.entries()) {
        if (isRecomputed) row.oldLogProbs = logProbs[i];
        row.entropies = entropies[i];
      }
    }
    if (topEntropyQuantile < 1) keepHighEntropy(rows, topEntropyQuantile);
    if (this.#updates.needsReference && this.#reference) {
      const { logProbs } = await this.#updates.score(rows, this.#reference);
      for (const [i, row] of rows.entries()) row.refLogProbs = logProbs[i];
    }
  }

  /** KL to the reference and entropy on sampled tokens. */
  async #distance(samples: readonly Sample[]): Promise<Record<string, number>> {
    const rows = rowsOf(samples, { ...this.options, maskTruncatedCompletions: false });
    const own = await this.#updates.score(rows, this.decoder.parameters as FlatBuffer<unknown>);
    let [tokens, entropy, kl] = [0, 0, 0];
    const theirs = this.#reference ? await this.#updates.score(rows, this.#reference) : undefined;
    for (const [i, logProbs] of own.logProbs.entries()) {
      tokens += logProbs.length;
      for (const [t, logProb] of logProbs.entries()) {
        entropy += own.entropies[i]?.[t] ?? 0;
        if (theirs) kl += klDivergenceOf(logProb, theirs.logProbs[i][t], "k3");
      }
    }
    return { entropy: entropy / tokens, ...(theirs ? { kl: kl / tokens } : {}) };
  }

  /** Everything besides the weights that a resume needs, as live buffers. */
  #state(): Record<string, TensorBuffer> {
    const optimizer = Object.entries(this.#optimizer.state()).map(([name, buffer]) => [`optimizer.${name}`, buffer] as const);
    const moves = this.options.beta > 0 && this.options.syncReferenceEvery > 0 && this.#reference;
    return { ...Object.fromEntries(optimizer), ...(moves ? { reference: moves.buffer } : {}) };
  }
}

interface Collected {
  samples: Sample[];
  values: Float64Array[];
}

/** Seconds of the parts of a step. */
class Clock {
  readonly laps: Record<string, number> = {};
  #last = performance.now();

  lap(name: string): void {
    const now = performance.now();
    this.laps[`seconds/${name}`] = (this.laps[`seconds/${name}`] ?? 0) + (now - this.#last) / 1000;
    this.#last = now;
  }
}

function copyOf({ specs, parameters }: PolicyDecoder): FlatBuffer<unknown> {
  const copy = allocateFlat(specs, parameters.layout);
  (copy.buffer.data as Float32Array).set(parameters.buffer.data as Float32Array);
  return copy as FlatBuffer<unknown>;
}

/** reference ← mixup · policy + (1 − mixup) · reference. */
function mix(reference: FlatBuffer<unknown>, policy: FlatBuffer<unknown>, mixup: number): void {
  const [into, from] = [reference.buffer.data as Float32Array, policy.buffer.data as Float32Array];
  for (let i = 0; i < into.length; i++) into[i] = mixup * from[i] + (1 - mixup) * into[i];
}

function meanAbsolute(rows: readonly PolicyRow[]): number {
  let [sum, count] = [0, 0];
  for (const { advantages } of rows) {
    count += advantages.length;
    for (const advantage of advantages) sum += Math.abs(advantage);
  }
  return sum / Math.max(1, count);
}

const failures = ({ names, numFailures }: RewardTable): Record<string, number> =>
  Object.fromEntries(names.flatMap((name, k) => (numFailures[k] > 0 ? [[`rewards/${name}/failures`, numFailures[k]]] : [])));

const numberOrNull = (value: number): number | null => (Number.isFinite(value) ? value : null);

function recordOf(sample: Sample, row: PolicyRow, rewards: readonly Reward[]): JsonRecord {
  const { prompt, text, reward } = sample;
  return {
    prompt: prompt.text,
    completion: text,
    rewards: Object.fromEntries(rewards.map(({ name }, k) => [name, numberOrNull(sample.rewards[k])])),
    reward: numberOrNull(reward),
    // Of all tokens, where they differ (token returns): their mean.
    advantage: row.advantages.reduce((sum, value) => sum + value, 0) / row.advantages.length,
    length: sample.completion.ids.length,
    finish: sample.completion.finish,
  };
}
