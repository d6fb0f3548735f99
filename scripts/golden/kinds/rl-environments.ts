// rl/environments: what Gymnasium's classic control and toy text environments did, step by step.

import { defaultsOf } from "../../../src/base/schema.ts";
import type { Environment, Value } from "../../../src/rl/control/environment.ts";
import { Acrobot } from "../../../src/rl/control/environments/acrobot.ts";
import { CartPole } from "../../../src/rl/control/environments/cart-pole.ts";
import { MountainCar, MountainCarContinuous } from "../../../src/rl/control/environments/mountain-car.ts";
import type { NativeEnvironment } from "../../../src/rl/control/environments/native-environment.ts";
import { Pendulum } from "../../../src/rl/control/environments/pendulum.ts";
import { environmentInfo } from "../../../src/rl/control/registry.ts";
import { timeLimit } from "../../../src/rl/control/wrappers/time-limit.ts";
import type { Comparison, Tolerance } from "../compare.ts";
import { asIntegers, asNumber, asNumbers, asObject, asObjects, type Fields, Malformed, type Numbers, shorten } from "../fields.ts";
import type { GoldenCase, GoldenKind } from "../kind.ts";
import { blackjackCases, checkInvalid, cliffWalkingCases, frozenLakeCases, optionsOf, taxiCases } from "../toy-text.ts";

/** An environment whose state can be read and set. */
type Stateful = Environment & Pick<NativeEnvironment<Value, Value>, "saveState" | "restoreState">;

interface Physics {
  readonly create: (options: Fields) => Environment;
  readonly constants: Fields;
  /** Gymnasium keeps the state in float32. */
  readonly rough?: boolean;
  /** The rule behind `feedback`, of the state before the step. */
  readonly feedback?: (state: ArrayLike<number>, gain: ArrayLike<number>) => number;
}

const dot = (a: ArrayLike<number>, b: ArrayLike<number>): number => Array.from(a).reduce((sum, value, i) => sum + value * b[i], 0);

const physics: Readonly<Record<string, Physics>> = {
  "CartPole-v1": {
    create: (options) => new CartPole(options),
    constants: CartPole.constants,
    feedback: (state, gain) => (dot(state, gain) > 0 ? 1 : 0),
  },
  "Acrobot-v1": { create: (options) => new Acrobot(options), constants: Acrobot.constants, feedback: (state) => (state[2] > 0 ? 2 : 0) },
  "MountainCar-v0": {
    create: (options) => new MountainCar(options),
    constants: MountainCar.constants,
    feedback: (state) => (state[1] >= 0 ? 2 : 0),
  },
  "MountainCarContinuous-v0": {
    create: (options) => new MountainCarContinuous(options),
    constants: MountainCarContinuous.constants,
    rough: true,
  },
  "Pendulum-v1": { create: (options) => new Pendulum(options), constants: Pendulum.constants },
};

/** Fields of other variants of the same physics, and the options that choose them. */
const variants: Readonly<Record<string, Fields>> = {
  semiImplicitEuler: { integrator: "semi-implicit-euler" },
  nipsDynamics: { dynamics: "nips" },
};

const tables: Readonly<Record<string, (content: Fields) => Iterable<Omit<GoldenCase, "kind">>>> = {
  "FrozenLake-v1": frozenLakeCases,
  "CliffWalking-v1": cliffWalkingCases,
  Taxi: taxiCases,
  "Blackjack-v1": blackjackCases,
};

export const kind: GoldenKind = {
  recognise(folder) {
    return [...Object.keys(physics), ...Object.keys(tables)].flatMap((topic) => {
      const file = `${topic}.json`;
      if (!folder.has(file)) return [];
      const cases = (): Iterable<GoldenCase> => casesOf(topic, asObject(folder.json(file), file));
      return [{ name: file, files: [file], cases }];
    });
  },
};

function* casesOf(topic: string, content: Fields): Generator<GoldenCase> {
  const inner = topic in physics ? physicsCases(topic, physics[topic], content) : tables[topic](content);
  for (const item of inner) yield { ...item, kind: `rl/environments/${topic}` };
}

function* physicsCases(topic: string, world: Physics, content: Fields): Generator<Omit<GoldenCase, "kind">> {
  const { maxEpisodeSteps, rewardThreshold, ...constants } = asObject(content.constants, "constants");
  yield {
    name: "constants",
    run: (comparison) => {
      const { schema, rewardThreshold: threshold } = environmentInfo(topic);
      comparison.exact("maxEpisodeSteps", defaultsOf(schema).maxEpisodeSteps, maxEpisodeSteps);
      if (rewardThreshold !== undefined) comparison.exact("rewardThreshold", threshold, rewardThreshold);
      comparison.exact("constants", world.constants, constants);
    },
  };
  const limit = asNumber(maxEpisodeSteps, "constants.maxEpisodeSteps");
  for (const [i, trajectory] of asObjects(content.trajectories, "trajectories").entries())
    yield {
      name: shorten(`trajectory ${i} ${JSON.stringify(trajectory.options)}`),
      run: (comparison) => runTrajectory(world, trajectory, limit, comparison),
    };
  for (const [field, options] of Object.entries(variants))
    for (const [i, trajectory] of asObjects(content[field] ?? [], field).entries())
      yield { name: `${field} ${i}`, run: (comparison) => runVariant(world, options, trajectory, comparison) };
  if (content.invalidActions !== undefined)
    yield { name: "invalidActions", run: (comparison) => checkInvalid(world.create({}), content.invalidActions, comparison) };
}

/** At the state given, with a seed for whatever is random. */
function startAt(environment: Environment, state: Numbers): Stateful {
  const { saveState, restoreState } = environment;
  if (!saveState || !restoreState) throw new Malformed("the environment cannot be put into a state");
  environment.reset({ seed: 0 });
  restoreState.call(environment, { ...saveState.call(environment), state: [...Array.from(state.data)] });
  return environment as Stateful;
}

const stateOf = (environment: Stateful): number[] => environment.saveState().state as number[];

/** Row `at` of stored numbers, whatever their rank. */
function rowOf({ data, shape }: Numbers, at: number): number[] {
  const width = data.length / shape[0];
  return Array.from({ length: width }, (_, i) => data[at * width + i]);
}

function runTrajectory(world: Physics, fields: Fields, limit: number, comparison: Comparison): void {
  const environment = startAt(world.create(optionsOf(fields.options, "options")), asNumbers(fields.initialState, "initialState"));
  const limited = timeLimit(environment, limit);
  const isDiscrete = environment.actionSpace.kind === "discrete";
  const actions = asNumbers(fields.actions, "actions");
  const comparable = asNumber(fields.comparableSteps, "comparableSteps");
  const stored = new Map(asIntegers(fields.stepIndex, "stepIndex").map((step, at) => [step, at]));
  const [states, observations] = [asNumbers(fields.states, "states"), asNumbers(fields.observations, "observations")];
  const [rewards, terminated, truncated] = ["rewards", "terminated", "truncated"].map((name) => asNumbers(fields[name], name).data);
  const feedback = fields.feedback === undefined ? undefined : asObject(fields.feedback, "feedback");
  const gain = feedback?.gain === undefined ? [] : asNumbers(feedback.gain, "feedback.gain").data;
  const exactStates = world.rough && fields.float64 !== undefined ? asObject(fields.float64, "float64") : undefined;
  let returnSum = 0;
  let isFollowed = true;
  const numSteps = actions.shape[0];
  for (let step = 0; step < numSteps; step++) {
    isFollowed &&= step < comparable || (feedback !== undefined && world.feedback !== undefined);
    const own = step >= comparable && isFollowed ? world.feedback?.(stateOf(environment), gain) : undefined;
    const action = own ?? (isDiscrete ? actions.data[step] : rowOf(actions, step));
    const result = limited.step(action as Value);
    returnSum += result.reward;
    const at = stored.get(step);
    if (at === undefined || !isFollowed) continue;
    if (step < comparable) {
      const tolerance: Tolerance = { absolute: world.rough ? 1e-5 : 1e-9 };
      comparison.numbers(`states[${at}]`, stateOf(environment), rowOf(states, at), tolerance);
      const observed = result.observation as ArrayLike<number>;
      comparison.numbers(`observations[${at}]`, observed, rowOf(observations, at), { absolute: world.rough ? 1e-5 : 1e-6 });
    }
    const place = `step ${step}`;
    comparison.numbers(`${place}.reward`, [result.reward], [rewards[at]], { absolute: 1e-9, relative: 1e-9 });
    comparison.exact(`${place}.terminated`, Number(result.terminated), terminated[at]);
    comparison.exact(`${place}.truncated`, Number(result.truncated), truncated[at]);
    if (!exactStates) continue;
    comparison.numbers(`float64.states[${at}]`, stateOf(environment), rowOf(asNumbers(exactStates.states, "float64.states"), at), {
      relative: 1e-10,
      absolute: 1e-12,
    });
    const exactRewards = asNumbers(exactStates.rewards, "float64.rewards").data;
    comparison.numbers(`float64.rewards[${at}]`, [result.reward], [exactRewards[at]], { relative: 1e-10 });
    comparison.exact(
      `float64.terminated[${at}]`,
      Number(result.terminated),
      asNumbers(exactStates.terminated, "float64.terminated").data[at],
    );
  }
  comparison.exact("steps", numSteps, fields.steps);
  if (isFollowed)
    comparison.numbers("returnSum", [returnSum], [asNumber(fields.returnSum, "returnSum")], { relative: 1e-9, absolute: 1e-9 });
}

function runVariant(world: Physics, options: Fields, fields: Fields, comparison: Comparison): void {
  const environment = startAt(world.create(options), asNumbers(fields.initialState, "initialState"));
  const states = asNumbers(fields.states, "states");
  for (const [step, action] of asIntegers(fields.actions, "actions").entries()) {
    environment.step(action);
    comparison.numbers(`states[${step}]`, stateOf(environment), rowOf(states, step), { absolute: 1e-9 });
  }
}
