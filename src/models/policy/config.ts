// What a policy for control is: sizes, activations and the kind of its action distribution, as plain data.
// Names and defaults are those of Stable-Baselines3's MlpPolicy, whose parameter names the checkpoints use too.
import { z } from "zod";
import { UsageError } from "../../base/errors.ts";
import { parseOptions } from "../../base/schema.ts";

export const policyActivations = ["tanh", "relu", "elu", "leakyRelu", "gelu", "silu"] as const;
export type PolicyActivation = (typeof policyActivations)[number];

const widths = (what: string) => z.array(z.int().positive().max(16_384)).max(64).describe(what);

export const policySchema = z.strictObject({
  hidden: widths("Widths of the hidden layers of the policy network").default([64, 64]),
  hiddenValue: widths("Widths of the hidden layers of the value network. Default: those of the policy network").optional(),
  trunk: widths("Widths of layers below both networks, which share them; none: two separate networks").default([]),
  activation: z.enum(policyActivations).describe("Activation of the hidden layers").default("tanh"),
  orthogonal: z
    .boolean()
    .describe("Orthogonal initialisation (gains sqrt 2, 0.01 for actions, 1 for the value), biases 0; else torch's default")
    .default(true),
  logStdInit: z.number().describe("Logarithm of the standard deviation that Gaussian policies start with").default(0),
  squash: z.boolean().describe("Squash continuous actions by tanh into their bounds, instead of clipping them").default(false),
  useSde: z.boolean().describe("State-dependent exploration (gSDE, Raffin et al. 2021) for continuous actions").default(false),
  fullStd: z.boolean().describe("gSDE: one standard deviation for each feature and action, instead of one a feature").default(true),
  useExpln: z.boolean().describe("gSDE: expln instead of exp for standard deviations, which grows less").default(false),
  learnFeatures: z.boolean().describe("gSDE: let the gradient of the exploration noise reach the features").default(false),
});
export type PolicyOptions = z.input<typeof policySchema>;
export type PolicySettings = z.output<typeof policySchema>;

/** The action distribution, and the size of what the network gives for it. */
export type PolicyHead =
  | { readonly kind: "categorical"; readonly n: number }
  | { readonly kind: "multi-categorical"; readonly dims: readonly number[] }
  | { readonly kind: "bernoulli"; readonly n: number }
  /** Diagonal, with a standard deviation for each action that does not depend on the state. */
  | {
      readonly kind: "gaussian";
      readonly size: number;
      readonly squash: boolean;
      /** Inside the logarithm of the slope of tanh. Default {@link headEpsilon}. */
      readonly epsilon?: number;
    }
  | {
      readonly kind: "gsde";
      readonly size: number;
      readonly squash: boolean;
      readonly fullStd: boolean;
      readonly useExpln: boolean;
      readonly learnFeatures: boolean;
      /** Added to variances, and as for squashed Gaussians. Default {@link headEpsilon}. */
      readonly epsilon?: number;
    };

/** Stable-Baselines3's. */
export const headEpsilon = 1e-6;

export interface PolicyConfig extends PolicySettings {
  /** F: numbers of one observation. */
  readonly observationSize: number;
  readonly head: PolicyHead;
  /** float64 for tests and for exact second-order steps; float32 is several times faster. */
  readonly dtype: "f32" | "f64";
}

/** @throws UsageError for wrong options. */
export function policyConfig(
  observationSize: number,
  head: PolicyHead,
  options: PolicyOptions = {},
  dtype: "f32" | "f64" = "f32",
): PolicyConfig {
  if (!(Number.isInteger(observationSize) && observationSize > 0))
    throw new UsageError(`policy: expected observations of at least one number, got ${observationSize}`);
  return { ...parseOptions(policySchema, options), observationSize, head, dtype };
}

/** K: numbers that the action network gives for one state. */
export function headSize(head: PolicyHead): number {
  switch (head.kind) {
    case "multi-categorical":
      return head.dims.reduce((sum, n) => sum + n, 0);
    case "categorical":
    case "bernoulli":
      return head.n;
    default:
      return head.size;
  }
}

/** A: numbers of one action. */
export function actionSize(head: PolicyHead): number {
  switch (head.kind) {
    case "categorical":
      return 1;
    case "multi-categorical":
      return head.dims.length;
    case "bernoulli":
      return head.n;
    default:
      return head.size;
  }
}

export const isDiscrete = (head: PolicyHead): boolean => head.kind === "categorical" || head.kind === "multi-categorical";

/** Hidden widths below the action output and below the value output, the shared trunk included. */
export function layerWidths(config: PolicyConfig): { trunk: readonly number[]; actor: readonly number[]; critic: readonly number[] } {
  return { trunk: config.trunk, actor: config.hidden, critic: config.hiddenValue ?? config.hidden };
}

/** L: width of the last hidden layer of the policy network, the features of gSDE. */
export function latentSize(config: PolicyConfig): number {
  return config.hidden.at(-1) ?? config.trunk.at(-1) ?? config.observationSize;
}
