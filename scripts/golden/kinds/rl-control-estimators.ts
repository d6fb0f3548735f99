// estimators.json: returns and advantages of rollouts in environments, by Stable-Baselines3 and Spinning Up.
import {
  discountedReturns,
  gae,
  normaliseAdvantages,
  nStepReturns,
  type RolloutView,
  rewardsWithBootstrap,
  spinningUpGae,
} from "../../../src/rl/control/estimators.ts";
import type { Comparison, Tolerance } from "../compare.ts";
import { estimatorKind } from "../estimator-cases.ts";
import { asNamedNumbers, asNumber, asNumbers, asObjects, type Fields, type Numbers } from "../fields.ts";

const exact: Tolerance = { relative: 1e-10, absolute: 1e-14 };

export const kind = estimatorKind({
  gae: runGae,
  spinningUpGae: runSpinningUp,
  discountedReturns: runDiscounted,
  nStepReturns: runNStep,
});

function rolloutOf(fields: Fields): RolloutView {
  const numbers = (name: string): Numbers => asNumbers(fields[name], name);
  const [numSteps, numEnvironments] = numbers("rewards").shape;
  const of = (name: string): ArrayLike<number> => numbers(name).data;
  return {
    numSteps,
    numEnvironments,
    rewards: of("rewards"),
    values: of("values"),
    terminated: of("terminated"),
    truncated: of("truncated"),
    terminalValues: of("terminalValues"),
    lastValues: of("lastValues"),
  };
}

function runGae(fields: Fields, comparison: Comparison): void {
  const rollout = rolloutOf(fields);
  const gamma = asNumber(fields.gamma, "gamma");
  const bootstrapTruncation = Boolean(fields.bootstrapTruncation);
  const { advantages, returns } = gae(rollout, { gamma, lambda: asNumber(fields.lam, "lam"), bootstrapTruncation });
  const used = bootstrapTruncation ? rewardsWithBootstrap(rollout, gamma) : rollout.rewards;
  comparison.numbers("rewardsUsed", used, asNumbers(fields.rewardsUsed, "rewardsUsed"), exact);
  comparison.numbers("advantages", advantages, asNumbers(fields.advantages, "advantages"), exact);
  comparison.numbers("returns", returns, asNumbers(fields.returns, "returns"), exact);
}

/** Each path is a rollout of its own that ends in a cut whose value is given. */
function runSpinningUp(fields: Fields, comparison: Comparison): void {
  const options = { gamma: asNumber(fields.gamma, "gamma"), lambda: asNumber(fields.lam, "lam") };
  const joined: number[] = [];
  for (const [index, path] of asObjects(fields.paths, "paths").entries()) {
    const rewards = asNumbers(path.rewards, "rewards").data;
    const none = new Uint8Array(rewards.length);
    const { advantages, returns } = spinningUpGae(
      {
        numSteps: rewards.length,
        numEnvironments: 1,
        rewards,
        values: asNumbers(path.values, "values").data,
        terminated: none,
        truncated: none,
        terminalValues: none,
        lastValues: [asNumber(path.lastValue, "lastValue")],
      },
      options,
    );
    comparison.numbers(`paths[${index}].advantages`, advantages, asNumbers(path.advantages, "advantages"), exact);
    comparison.numbers(`paths[${index}].rewardsToGo`, returns, asNumbers(path.rewardsToGo, "rewardsToGo"), exact);
    joined.push(...advantages);
  }
  const normalised = normaliseAdvantages(joined, "spinning-up");
  comparison.numbers("normalisedAdvantages", normalised, asNumbers(fields.normalisedAdvantages, "normalisedAdvantages"), exact);
}

function runDiscounted(fields: Fields, comparison: Comparison): void {
  const rollout = rolloutOf(fields);
  const gamma = asNumber(fields.gamma, "gamma");
  const plain = discountedReturns(rollout, { gamma, bootstrap: false });
  const { returns, advantages } = discountedReturns(rollout, { gamma });
  comparison.numbers("returnsPlain", plain.returns, asNumbers(fields.returnsPlain, "returnsPlain"), exact);
  comparison.numbers("returnsBootstrapped", returns, asNumbers(fields.returnsBootstrapped, "returnsBootstrapped"), exact);
  comparison.numbers("monteCarloAdvantages", advantages, asNumbers(fields.monteCarloAdvantages, "monteCarloAdvantages"), exact);
}

function runNStep(fields: Fields, comparison: Comparison): void {
  const rollout = rolloutOf(fields);
  const gamma = asNumber(fields.gamma, "gamma");
  for (const [n, expected] of asNamedNumbers(fields.nStepReturns, "nStepReturns"))
    comparison.numbers(`nStepReturns.${n}`, nStepReturns(rollout, { gamma, n: Number(n) }).returns, expected, exact);
}
