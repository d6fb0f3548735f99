// Learning in environments, everything included: rollouts, estimates and updates, with the zoo's settings for each task. One sample is a
// fixed number of environment steps of a run that goes on; what is compared besides the time is that both sides learn.
import { Agent } from "../src/rl/control/agent.ts";
import type { VectorEnvironment } from "../src/rl/control/environment.ts";
import type { ControlAlgorithm, ControlOptions } from "../src/rl/control/options.ts";
import { environmentFactory } from "../src/rl/control/registry.ts";
import { batchEnvironments } from "../src/rl/control/vector.ts";
import { openEnvironments } from "../src/rl/control/vector-workers.ts";
import { zooEntry } from "../src/rl/control/zoo.ts";
import type { Backend, Binding, Session } from "../src/runtime/backend.ts";
import { openBackend } from "../src/runtime/open.ts";
import type { Benchmark, Case, Context } from "./harness/benchmark.ts";

interface Task {
  algo: ControlAlgorithm;
  env: string;
  /** Environment steps of one sample: about four seconds each. */
  steps: { ours: number; peer: number };
  /** Threads for our environments. Default 0: the main one. */
  workers?: number;
}

/** Worker threads read the sources too. */
const execArgv = ["--import", new URL("../src/runtime/testing/register-typescript.mjs", import.meta.url).href];

const tasks: readonly Task[] = [
  { algo: "ppo", env: "CartPole-v1", steps: { ours: 65_536, peer: 16_384 } },
  { algo: "ppo", env: "Pendulum-v1", steps: { ours: 32_768, peer: 8192 } },
  { algo: "a2c", env: "CartPole-v1", steps: { ours: 80_000, peer: 16_000 } },
  { algo: "trpo", env: "CartPole-v1", steps: { ours: 65_536, peer: 16_384 } },
  { algo: "trpo", env: "HalfCheetah-v5", steps: { ours: 8192, peer: 8192 }, workers: 2 },
];

export const rl: Benchmark = {
  name: "rl",
  summary: "an environment step of PPO, A2C and TRPO, everything included; one thread",
  peer: "stable-baselines3, sb3-contrib, gymnasium[mujoco] and torch",
  seconds: 300,
  prepare,
};

/** Where the time of our steps goes, in milliseconds since it was cleared. */
interface Clock {
  environment: number;
  programs: number;
  runs: number;
}

/** What one side tells of a sample. */
interface Sample {
  ms: number;
  cpuMs: number;
  steps: number;
  meanReturn: number;
}

async function prepare({ peers, defer }: Context): Promise<Case[]> {
  const cases: Case[] = [];
  const peer = peers?.("rl.py");
  for (const task of tasks) {
    const { algo, env, workers = 0, steps } = task;
    const options = zooEntry(algo, env)?.options as ControlOptions;
    const ours = await openOurs(task, options, defer);
    const samples: { ours: Sample[]; peer: Sample[] } = { ours: [], peer: [] };
    const perStep = (side: "ours" | "peer", told: Sample): number => {
      samples[side].push(told);
      return (told.ms * 1000) / told.steps;
    };
    const entry: Case = {
      name: `${algo.toUpperCase()} ${env}, ${options.numEnvs} environments`,
      unit: "µs",
      contenders: [{ name: "longwave", side: "ours", sample: async () => perStep("ours", await ours.sample(steps.ours)) }],
      facts: () => facts(samples.ours, samples.peer, ours.split),
    };
    if (workers > 0) entry.contenders[0].note = `environments in ${workers} threads`;
    if (peer) {
      const { name } = entry;
      const version = await peer.call<string>("load", { name, algo, env, options });
      entry.contenders.push({
        name: "Stable-Baselines3",
        side: "peer",
        note: `${version}; one torch thread, which is faster here than several`,
        sample: async () => perStep("peer", await peer.call<Sample>("sample", { name, steps: steps.peer })),
      });
    }
    cases.push(entry);
  }
  return cases;
}

async function openOurs(
  { algo, env, workers = 0 }: Task,
  options: ControlOptions,
  defer: Context["defer"],
): Promise<{ sample: (steps: number) => Promise<Sample>; split: () => string }> {
  const clock: Clock = { environment: 0, programs: 0, runs: 0 };
  const { backend } = openBackend({ threads: 1 });
  defer(() => backend.dispose());
  const make = await environmentFactory(env);
  const count = options.numEnvs ?? 1;
  const batch =
    workers > 0 ? await openEnvironments({ id: env }, count, { workers, execArgv }) : batchEnvironments(make, count, { name: env });
  timeSteps(batch, clock);
  const agent = new Agent(algo, { ...options, env: batch, backend: timed(backend, clock) });
  defer(() => agent.dispose());
  // Schedules stay where they begin.
  agent.trainer.totalSteps = 1e9;
  let last = { ...clock, ms: 0, steps: 1 };
  const sample = async (steps: number): Promise<Sample> => {
    Object.assign(clock, { environment: 0, programs: 0, runs: 0 });
    const cpu = process.cpuUsage();
    const start = performance.now();
    let made = 0;
    let meanReturn = Number.NaN;
    while (made < steps) {
      const { metrics, tokens = 0 } = await agent.trainer.step();
      made += tokens;
      meanReturn = metrics["rollout/ep_rew_mean"] ?? Number.NaN;
    }
    const ms = performance.now() - start;
    const { user, system } = process.cpuUsage(cpu);
    last = { ...clock, ms, steps: made };
    return { ms, cpuMs: (user + system) / 1000, steps: made, meanReturn };
  };
  const split = (): string => {
    const share = (ms: number): string => `${((ms * 1000) / last.steps).toFixed(1)} µs`;
    const rest = last.ms - last.environment - last.programs;
    return `ours, a step: environments ${share(last.environment)}, ${(last.runs / last.steps).toFixed(3)} programs ${share(last.programs)}, the rest ${share(rest)}`;
  };
  return { sample, split };
}

/** Adds the time of steps to a clock; with threads, the time until all have answered. */
function timeSteps(batch: VectorEnvironment, clock: Clock): void {
  const step = batch.step.bind(batch);
  batch.step = (actions) => {
    const start = performance.now();
    const done = (): void => {
      clock.environment += performance.now() - start;
    };
    const pending = step(actions);
    if (pending) return pending.then(done);
    done();
  };
}

/** The same backend, whose runs add to a clock. */
function timed(backend: Backend, clock: Clock): Backend {
  const timedBinding = (binding: Binding): Binding => ({
    setInput: (name, buffer) => binding.setInput(name, buffer),
    setOutput: (name, buffer) => binding.setOutput(name, buffer),
    run: () => {
      const start = performance.now();
      binding.run();
      clock.programs += performance.now() - start;
      clock.runs++;
    },
    runAsync: (signal) => binding.runAsync(signal),
    dispose: () => binding.dispose(),
    [Symbol.dispose]: () => binding.dispose(),
  });
  const timedSession = (session: Session): Session => ({
    inputNames: session.inputNames,
    outputNames: session.outputNames,
    bind: (inputs, outputs) => timedBinding(session.bind(inputs, outputs)),
    endProfile: () => session.endProfile(),
    dispose: () => session.dispose(),
    [Symbol.dispose]: () => session.dispose(),
  });
  return {
    name: backend.name,
    version: backend.version,
    threads: backend.threads,
    operators: backend.operators,
    createSession: (model, options) => timedSession(backend.createSession(model, options)),
    createSessionAsync: async (model, options) => timedSession(await backend.createSessionAsync(model, options)),
    dispose: () => {},
    [Symbol.dispose]: () => {},
  };
}

function facts(ours: readonly Sample[], peer: readonly Sample[], split: () => string): string[] {
  const total = (samples: readonly Sample[], name: "ms" | "cpuMs" | "steps"): number =>
    samples.slice(1).reduce((sum, sample) => sum + sample[name], 0);
  const rate = (samples: readonly Sample[]): number => (1000 * total(samples, "steps")) / total(samples, "ms");
  const cpu = (samples: readonly Sample[]): number => (1000 * total(samples, "cpuMs")) / total(samples, "steps");
  const theirs = peer.length > 1;
  return [
    `${rate(ours).toFixed(0)} environment steps a second${theirs ? `, theirs ${rate(peer).toFixed(0)}: ${(rate(ours) / rate(peer)).toFixed(1)} times as many` : ""}`,
    `processor time of all threads ${cpu(ours).toFixed(1)} µs a step${theirs ? `, theirs ${cpu(peer).toFixed(1)}: ${(cpu(peer) / cpu(ours)).toFixed(1)} times as much` : ""}`,
    split(),
    `mean return at the end ${ours.at(-1)?.meanReturn.toFixed(1)}${theirs ? `, theirs ${peer.at(-1)?.meanReturn.toFixed(1)}, after a fraction of the steps` : ""}`,
  ];
}
