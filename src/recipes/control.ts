// Learning from reward in an environment: an algorithm and an environment in, run folders out, one for each seed.
import { join } from "node:path";
import { writeFileAtomic } from "../base/atomic.ts";
import { UsageError } from "../base/errors.ts";
import { changeableSettings, createRunDirectory, type RunDirectory, type RunEvent, runLoop, withSinks } from "../engine/index.ts";
import { countParameters } from "../nn/index.ts";
import { controlSchema, controlSettings, ignoredControlOptions } from "../rl/control/options.ts";
import { describeSpace } from "../rl/control/spaces.ts";
import { ControlTrainer } from "../rl/control/trainer.ts";
import { type AggregateScore, aggregateScores } from "../rl/core/aggregate-scores.ts";
import type { Backend } from "../runtime/backend.ts";
import { type ControlRunOptions, type ControlRunSettings, controlDefaults, parseControlRun } from "./control-options.ts";
import { environmentName, environmentSource, isSameModule, openNamedEnvironments, thresholdOf } from "./control-source.ts";
import { machineArtifact, stage, warning } from "./events.ts";
import { locateRun, openFormer, recordOf, settingsOf } from "./training-run.ts";

export interface ControlContext {
  backend: Backend;
  /** Lets the running rollout and update finish and be saved. */
  signal?: AbortSignal;
  /** Called once a run folder exists; with several seeds for each. */
  onRun?: (run: RunDirectory) => void;
}

/** Besides the loop's: what is only watched. */
const changeableAtResume = [
  ...changeableSettings,
  "workers",
  "hyperparameters",
  "seeds",
  "statsWindow",
  "evaluationEpisodes",
  "evaluationEnvs",
  "deterministicEvaluation",
  "rewardThreshold",
  "stopWhenSolved",
];

/**
 * Learns. With several seeds the runs follow each other, each with its own events from `run-start` to `run-end`; a stage `seeds` with
 * the mean, interquartile mean and 95 % interval of their final evaluations comes last, and is written to seeds.json beside the runs.
 * @throws UsageError, EnvironmentError, CheckpointError, NotFiniteError, AbortedError: see their messages.
 */
export async function* control(options: ControlRunOptions, context: ControlContext): AsyncGenerator<RunEvent> {
  const settings = parseControlRun(options);
  if (settings.resume !== undefined && settings.seeds > 1)
    throw new UsageError("seeds: expected one run to resume, got several", { hint: "Resume each of their folders by itself." });
  const scores: number[] = [];
  const folders: string[] = [];
  for (let i = 0; i < settings.seeds; i++) {
    let score: number | undefined;
    const onRun = (run: RunDirectory): void => {
      folders.push(run.path);
      context.onRun?.(run);
    };
    for await (const event of learn({ ...settings, seed: settings.seed + i }, { ...context, onRun })) {
      if (event.kind === "evaluation") score = event.metrics["eval/mean_reward"];
      yield event;
    }
    if (score !== undefined) scores.push(score);
  }
  if (settings.seeds > 1 && scores.length === settings.seeds) yield aggregated(settings, scores, folders);
}

function aggregated(settings: ControlRunSettings, scores: readonly number[], folders: readonly string[]): RunEvent {
  const summary = aggregateScores([scores]);
  const record = { algo: settings.algo, env: settings.env, steps: settings.steps, scores, folders, ...summary };
  writeFileAtomic(join(settings.runs, `${nameOf(settings)}-seeds.json`), `${JSON.stringify(record, null, 2)}\n`);
  return stage("seeds", describeScores(summary, scores.length), {
    progress: 1,
    metrics: {
      mean: summary.mean,
      interquartileMean: summary.interquartileMean,
      intervalLow: summary.interval[0],
      intervalHigh: summary.interval[1],
    },
  });
}

/** One line about the scores of several runs. */
export function describeScores({ mean, interquartileMean, interval }: AggregateScore, numRuns: number): string {
  const [low, high] = interval;
  return `${numRuns} seeds: mean return ${mean.toFixed(1)}, interquartile mean ${interquartileMean.toFixed(1)} (95 % ${low.toFixed(1)} to ${high.toFixed(1)})`;
}

const nameOf = ({ name, algo, env }: Pick<ControlRunSettings, "name" | "algo" | "env">): string =>
  name ?? `${algo}-${environmentName(env)}`;

async function* learn(settings: ControlRunSettings, { backend, signal, onRun }: ControlContext): AsyncGenerator<RunEvent> {
  const resume = settings.resume === undefined ? undefined : locateRun(settings.resume);
  const former = resume && openFormer(resume.run, "control");
  if (former && resume?.checkpoint === "auto") {
    const end = endOf(former, settings);
    if (end !== undefined) {
      onRun?.(former);
      yield stage("finished", end.message, { progress: 1, metrics: { environmentSteps: end.environmentSteps } });
      return;
    }
  }
  const threshold = settings.rewardThreshold ?? (settings.stopWhenSolved ? thresholdOf(settings.env) : undefined);
  if (settings.stopWhenSolved && threshold === undefined)
    throw new UsageError(`stopWhenSolved: expected an environment with a threshold, got ${settings.env}`, {
      hint: "Give rewardThreshold.",
    });
  const algorithm = controlSettings({
    ...settingsOf(controlSchema, settings),
    ...(threshold === undefined ? {} : { rewardThreshold: threshold }),
  });
  if (threshold !== undefined && settings.evaluateEvery === 0)
    throw new UsageError("rewardThreshold: expected evaluations, got none", { hint: "Set evaluateEvery above 0." });
  const { env, envOptions, workers, numEnvs, evaluationEnvs, evaluateEvery, keepBest } = settings;
  const environments = await openNamedEnvironments(env, numEnvs, { options: envOptions, workers });
  const evaluation = evaluateEvery > 0 ? await openNamedEnvironments(env, evaluationEnvs, { options: envOptions }) : undefined;
  const { seed, steps } = settings;
  const trainer = new ControlTrainer(backend, environments, {
    settings: algorithm,
    seed,
    totalSteps: steps,
    ...(evaluation ? { evaluation } : {}),
  });
  try {
    const numUpdates = Math.ceil(steps / trainer.stepsPerIteration);
    yield stage("environment", describeTask(settings, trainer), { progress: 1 });
    const config = recordOf(settings, { env: environmentSource(settings.env) }, ["seeds"]);
    for (const message of ignoredControlOptions(algorithm, controlDefaults(settings))) yield warning(message);
    if (former && former.checkpoints.steps().length === 0)
      yield warning(`${former.path}: there is no checkpoint yet; the run starts from the beginning`);
    const name = settings.seeds > 1 ? `${nameOf(settings)}-seed${seed}` : nameOf(settings);
    const run = former ?? createRunDirectory({ root: settings.runs, name, config });
    onRun?.(run);
    const every = (environmentSteps: number): number =>
      environmentSteps === 0 ? 0 : Math.max(1, Math.round(environmentSteps / trainer.stepsPerIteration));
    const loop = runLoop(
      trainer,
      {
        steps: numUpdates,
        stepSize: trainer.stepsPerIteration,
        logEvery: settings.logEvery,
        evaluateEvery: every(evaluateEvery),
        checkpointEvery: every(settings.checkpointEvery),
        checkpointSeconds: settings.checkpointSeconds,
        keepLast: settings.keepLast,
        onNotFinite: settings.onNotFinite,
        watchedMetrics: ["train/loss", "train/value_loss", "train/gradient_norm"],
        ...(keepBest && evaluateEvery > 0 ? { keepBest: { metric: "eval/mean_reward", mode: "max" as const } } : {}),
        checkpoints: run.checkpoints,
        config,
        changeable: isSameModule(former?.config.env, env) ? [...changeableAtResume, "env"] : changeableAtResume,
        ...(resume && run.checkpoints.steps().length > 0 ? { resume: resume.checkpoint } : {}),
      },
      signal,
    );
    yield* withSinks(withMachine(loop, backend), run.sinks());
  } finally {
    trainer.dispose();
  }
}

/** What to say of a run that has nothing left to do; undefined for one that goes on. */
function endOf(
  { path, checkpoints }: RunDirectory,
  { steps, numEnvs, numSteps, evaluateEvery }: ControlRunSettings,
): { message: string; environmentSteps: number } | undefined {
  const newest = checkpoints.latest();
  if (newest === undefined) return undefined;
  const { done, totalTokens, evaluatedAt, best } = newest.progress;
  const perUpdate = numEnvs * numSteps;
  const isWhole = totalTokens >= Math.ceil(steps / perUpdate) * perUpdate;
  // Interrupted between the last update and the last evaluation, or now to be evaluated for the first time.
  const isEvaluated = evaluateEvery === 0 || evaluatedAt === totalTokens / perUpdate;
  if (!done && !(isWhole && isEvaluated)) return undefined;
  const found = best ? ` (best mean return ${best.value.toFixed(2)} at step ${best.step})` : "";
  const message = done
    ? `${path} was solved at environment step ${totalTokens}${found}: nothing is left to do. Start a new run without stopWhenSolved and rewardThreshold to learn longer.`
    : `${path} is finished: it is at environment step ${totalTokens} of ${totalTokens}${found}. Set steps above ${totalTokens} to go on.`;
  return { message, environmentSteps: totalTokens };
}

async function* withMachine(events: AsyncGenerator<RunEvent>, backend: Backend): AsyncGenerator<RunEvent> {
  for await (const event of events) {
    yield event;
    if (event.kind === "run-start") yield machineArtifact(backend);
  }
}

function describeTask(
  { algo, env, numEnvs, numSteps, seed }: ControlRunSettings,
  { control: { policy, observationSpace, actionSpace } }: ControlTrainer,
): string {
  const parameters = countParameters(policy.specs);
  const updates = `an update every ${(numEnvs * numSteps).toLocaleString("en")} environment steps (${numEnvs} × ${numSteps})`;
  return `${algo} in ${environmentName(env)}: observations ${describeSpace(observationSpace)}, actions ${describeSpace(actionSpace)}; ${updates}, ${parameters.toLocaleString("en")} parameters, seed ${seed}`;
}
