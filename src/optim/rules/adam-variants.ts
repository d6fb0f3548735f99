// Relatives of Adam, with the same decaying sums: NAdam (Dozat 2016), RAdam (Liu et al. 2020), Adamax (Kingma & Ba 2015, §7.1).
import { z } from "zod";
import { abs, add, div, maximum, mul, sqrt, square } from "../../tensor/elementwise.ts";
import {
  beta1,
  beta2,
  decayingSum,
  decayRate,
  epsilon,
  inGradient,
  learningRate,
  maximize,
  type UpdateRule,
  weightDecay,
} from "../update-rule.ts";
import { secondMomentRoot } from "./adam.ts";

const decoupledWeightDecay = z.boolean().describe("Apply weight decay to the weights, as AdamW does").default(false);
const fields = { beta1, beta2, epsilon: epsilon(1e-8), weightDecay: weightDecay(0, inGradient), decoupledWeightDecay, maximize };
const place = (decoupled: boolean) => (decoupled ? "parameter" : "gradient");

export const nadamSchema = z
  .strictObject({
    kind: z.literal("nadam"),
    learningRate: learningRate(2e-3),
    momentumDecay: z.number().min(0).describe("How fast the momentum rises to beta1").default(4e-3),
    ...fields,
  })
  .describe("Adam with Nesterov momentum");

/** State: firstMoment, secondMoment. */
export function nadam(options: z.output<typeof nadamSchema>): UpdateRule {
  const { beta1, beta2, epsilon, momentumDecay, decoupledWeightDecay } = options;
  const momentumAt = (step: number): number => beta1 * (1 - 0.5 * 0.96 ** (step * momentumDecay));
  // The product of all momenta so far: a function of the step alone, so that it need not be saved.
  let known = { step: 0, product: 1 };
  const productUpTo = (step: number): number => {
    if (step < known.step) known = { step: 0, product: 1 };
    let { step: at, product } = known;
    while (at < step) product *= momentumAt(++at);
    known = { step, product };
    return product;
  };
  return {
    weightDecay: place(decoupledWeightDecay),
    state: { firstMoment: 0, secondMoment: 0 },
    scalars(step, learningRate) {
      const root = secondMomentRoot(step, beta2);
      const [momentum, next, product] = [momentumAt(step), momentumAt(step + 1), productUpTo(step)];
      return {
        gradientWeight: (learningRate * (1 - momentum)) / (1 - product) / root,
        momentWeight: (learningRate * next * (1 - beta1)) / (1 - product * next) / root,
        epsilon: epsilon / root,
      };
    },
    update(gradient, state, { gradientWeight, momentWeight, epsilon }) {
      const firstMoment = decayingSum(state.firstMoment, beta1, gradient);
      const secondMoment = decayingSum(state.secondMoment, beta2, square(gradient));
      const ahead = add(mul(gradient, gradientWeight), mul(firstMoment, momentWeight));
      return { delta: div(ahead, add(sqrt(secondMoment), epsilon)), state: { firstMoment, secondMoment } };
    },
  };
}

export const radamSchema = z
  .strictObject({ kind: z.literal("radam"), learningRate: learningRate(1e-3), ...fields })
  .describe("Adam that waits until the variance of its step size is known");

/** State: firstMoment, secondMoment. */
export function radam({ beta1, beta2, epsilon, decoupledWeightDecay }: z.output<typeof radamSchema>): UpdateRule {
  return {
    weightDecay: place(decoupledWeightDecay),
    state: { firstMoment: 0, secondMoment: 0 },
    scalars(step, learningRate) {
      const stepSize = (learningRate * (1 - beta1)) / (1 - beta1 ** step);
      const correction2 = 1 - beta2 ** step;
      const longest = 2 / (1 - beta2) - 1;
      const length = longest - (2 * step * beta2 ** step) / correction2;
      // Too few samples: momentum alone. The denominator becomes 0 · sqrt(V) + 1.
      if (length <= 5) return { stepSize, rootWeight: 0, offset: 1 };
      const rectification = Math.sqrt(((length - 4) * (length - 2) * longest) / ((longest - 4) * (longest - 2) * length));
      const scale = 1 / (rectification * Math.sqrt(correction2));
      return { stepSize, rootWeight: Math.sqrt(1 - beta2) * scale, offset: epsilon * scale };
    },
    update(gradient, state, { stepSize, rootWeight, offset }) {
      const firstMoment = decayingSum(state.firstMoment, beta1, gradient);
      const secondMoment = decayingSum(state.secondMoment, beta2, square(gradient));
      const denominator = add(mul(sqrt(secondMoment), rootWeight), offset);
      return { delta: mul(div(firstMoment, denominator), stepSize), state: { firstMoment, secondMoment } };
    },
  };
}

export const adamaxSchema = z
  .strictObject({
    kind: z.literal("adamax"),
    learningRate: learningRate(2e-3),
    beta1,
    beta2: decayRate(0.999, "the largest gradient"),
    epsilon: epsilon(1e-8),
    weightDecay: weightDecay(0, inGradient),
    maximize,
  })
  .describe("Adam with the infinity norm");

/** State: firstMoment, infinityNorm. */
export function adamax({ beta1, beta2, epsilon }: z.output<typeof adamaxSchema>): UpdateRule {
  return {
    weightDecay: "gradient",
    state: { firstMoment: 0, infinityNorm: 0 },
    scalars: (step, learningRate) => ({ stepSize: (learningRate * (1 - beta1)) / (1 - beta1 ** step) }),
    update(gradient, state, { stepSize }) {
      const firstMoment = decayingSum(state.firstMoment, beta1, gradient);
      const infinityNorm = maximum(mul(state.infinityNorm, beta2), add(abs(gradient), epsilon));
      return { delta: mul(div(firstMoment, infinityNorm), stepSize), state: { firstMoment, infinityNorm } };
    },
  };
}
