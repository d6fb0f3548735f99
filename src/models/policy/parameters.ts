// Parameters of a policy: the actor (with the trunk, where one is shared) and the critic, each a contiguous part of one flat buffer, so
// that an update of one of them is a pass over its part alone.
import { invariant } from "../../base/errors.ts";
import { type Initializer, initializeParameters, type ParameterSpec, parameter } from "../../nn/parameter.ts";
import type { TensorBuffer } from "../../runtime/buffer.ts";
import { viewOf } from "../../runtime/buffer.ts";
import { allocateFlat, type FlatBuffer, type FlatLayout, layoutOf } from "../../runtime/flat.ts";
import { headSize, latentSize, layerWidths, type PolicyConfig } from "./config.ts";

export interface DenseParameters<T> {
  /** [out, in] */
  weight: T;
  /** [out] */
  bias: T;
}

export interface ActorParameters<T> {
  /** Gaussians: [A]; gSDE: [L, A], or [L, 1] without `fullStd`. */
  logStd?: T;
  trunk: DenseParameters<T>[];
  layers: DenseParameters<T>[];
  output: DenseParameters<T>;
}

export interface CriticParameters<T> {
  layers: DenseParameters<T>[];
  output: DenseParameters<T>;
}

export interface PolicyParameters<T> {
  actor: ActorParameters<T>;
  critic: CriticParameters<T>;
}

export interface Policy {
  readonly config: PolicyConfig;
  readonly specs: PolicyParameters<ParameterSpec>;
  /** Groups `actor` and `critic`. */
  readonly parameters: FlatBuffer<PolicyParameters<ParameterSpec>>;
}

export type PolicyPart = "actor" | "critic" | "both";

/** Shapes and initialisation. */
export function policyParameters(config: PolicyConfig): PolicyParameters<ParameterSpec> {
  const { dtype, head } = config;
  const { trunk, actor, critic } = layerWidths(config);
  const dense = (inner: number, outer: number, gain: number): DenseParameters<ParameterSpec> => {
    // torch's default for a linear layer: uniform within 1/√in, weight and bias.
    const uniform: Initializer = { kind: "uniform", limit: 1 / Math.sqrt(inner) };
    const weight: Initializer = config.orthogonal ? { kind: "orthogonal", gain } : uniform;
    const bias: Initializer = config.orthogonal ? { kind: "zeros" } : uniform;
    return { weight: parameter([outer, inner], weight, { dtype }), bias: parameter([outer], bias, { dtype }) };
  };
  const stack = (inner: number, outer: readonly number[]): DenseParameters<ParameterSpec>[] =>
    outer.map((width, i) => dense(i === 0 ? inner : outer[i - 1], width, Math.SQRT2));
  const below = trunk.at(-1) ?? config.observationSize;
  const latent = latentSize(config);
  const logStd = (shape: number[]): ParameterSpec =>
    parameter(shape, { kind: "constant", value: config.logStdInit }, { dtype, decay: false });
  return {
    actor: {
      ...(head.kind === "gaussian" ? { logStd: logStd([head.size]) } : {}),
      ...(head.kind === "gsde" ? { logStd: logStd([latent, head.fullStd ? head.size : 1]) } : {}),
      trunk: stack(config.observationSize, trunk),
      layers: stack(below, actor),
      output: dense(latent, headSize(head), 0.01),
    },
    critic: { layers: stack(below, critic), output: dense(critic.at(-1) ?? below, 1, 1) },
  };
}

/** Memory for a policy, all zero. */
export function allocatePolicy(config: PolicyConfig): Policy {
  const specs = policyParameters(config);
  const parameters = allocateFlat(
    specs,
    layoutOf(specs, (path) => path.slice(0, path.indexOf("."))),
  );
  return { config, specs, parameters };
}

/** A new policy with random weights. */
export function createPolicy(config: PolicyConfig, seed: number): Policy {
  const policy = allocatePolicy(config);
  initializeParameters(policy.specs, policy.parameters, seed);
  return policy;
}

/** Where a part lies in the flat buffer. */
export function rangeOf({ layout }: Pick<FlatBuffer<unknown>, "layout">, part: PolicyPart): { start: number; end: number } {
  if (part === "both") return { start: 0, end: layout.length };
  const group = layout.groups.find(({ name }) => name === part);
  invariant(group, `a policy without parameters of its ${part}`);
  return group;
}

/** The memory of a part, rank 1. */
export function partOf(policy: Policy, part: PolicyPart): TensorBuffer {
  const { start, end } = rangeOf(policy.parameters, part);
  return viewOf(policy.parameters.buffer, [end - start], start);
}

/** The layout of a part, counted from its beginning. */
export function layoutOfPart(layout: FlatLayout, part: PolicyPart): FlatLayout {
  const { start, end } = rangeOf({ layout }, part);
  return {
    dtype: layout.dtype,
    leaves: layout.leaves.filter(({ offset }) => offset >= start && offset < end).map((leaf) => ({ ...leaf, offset: leaf.offset - start })),
    groups: layout.groups
      .filter((group) => group.start >= start && group.end <= end)
      .map((group) => ({ ...group, start: group.start - start, end: group.end - start })),
    length: end - start,
  };
}
