// What a saved policy needs besides its network to act in an environment: the spaces and the statistics that observations are
// normalised by. They are fields of policy.json.
import { z } from "zod";
import { FormatError, UsageError } from "../../base/errors.ts";
import { loadPolicy, savePolicy } from "../../models/policy/checkpoint.ts";
import type { Policy } from "../../models/policy/parameters.ts";
import { Box, Discrete, describeSpace, featureSize, MultiBinary, MultiDiscrete, type Space } from "./spaces.ts";
import { Normaliser } from "./wrappers/normaliser.ts";

/** A policy that can act: with the spaces of its environment and its normalisation. */
export interface ControlPolicy {
  readonly policy: Policy;
  /** For messages; such as `CartPole-v1`. */
  readonly environment: string;
  readonly observationSpace: Space;
  readonly actionSpace: Space;
  /** Absent: observations are used as they are. */
  readonly normaliser?: Normaliser;
}

const maxEntries = 1_000_000;
const bound = z.union([z.number(), z.literal("Infinity"), z.literal("-Infinity")]);
const spaceSchema = z.discriminatedUnion("kind", [
  z.object({ kind: z.literal("discrete"), n: z.int().positive(), start: z.int() }),
  z.object({
    kind: z.literal("box"),
    shape: z.array(z.int().positive()).max(16),
    low: z.array(bound).max(maxEntries),
    high: z.array(bound).max(maxEntries),
  }),
  z.object({ kind: z.literal("multi-discrete"), dims: z.array(z.int().positive()).max(maxEntries) }),
  z.object({ kind: z.literal("multi-binary"), n: z.int().positive() }),
]);
const normaliserSchema = z.object({
  clipObservation: z.number().positive(),
  epsilon: z.number().positive(),
  statistics: z.looseObject({}),
});
const fieldsSchema = z.looseObject({
  environment: z.string(),
  observationSpace: spaceSchema,
  actionSpace: spaceSchema,
  normaliser: normaliserSchema.nullish(),
});

/** Infinite bounds become texts, which JSON has. */
export function spaceToJson(space: Space): z.input<typeof spaceSchema> {
  if (space.kind === "box") {
    const texts = (values: Float64Array): (number | "Infinity" | "-Infinity")[] =>
      Array.from(values, (value) => (Number.isFinite(value) ? value : value > 0 ? "Infinity" : "-Infinity"));
    return { kind: "box", shape: [...space.shape], low: texts(space.low), high: texts(space.high) };
  }
  return space.kind === "multi-discrete" ? { kind: space.kind, dims: [...space.dims] } : space;
}

function spaceFromJson(json: z.output<typeof spaceSchema>): Space {
  switch (json.kind) {
    case "discrete":
      return Discrete(json.n, json.start);
    case "box":
      return Box(json.low.map(Number), json.high.map(Number), json.shape);
    case "multi-discrete":
      return MultiDiscrete(json.dims);
    case "multi-binary":
      return MultiBinary(json.n);
  }
}

/** Writes policy.json and model.safetensors into an existing directory. */
export function saveControlPolicy(directory: string, control: ControlPolicy): void {
  const { normaliser } = control;
  savePolicy(directory, control.policy, {
    environment: control.environment,
    observationSpace: spaceToJson(control.observationSpace),
    actionSpace: spaceToJson(control.actionSpace),
    ...(normaliser?.settings.observations
      ? {
          normaliser: {
            clipObservation: normaliser.settings.clipObservation,
            epsilon: normaliser.settings.epsilon,
            statistics: normaliser.saveState(),
          },
        }
      : {}),
  });
}

/** @throws FormatError for a damaged file, or one whose parts do not fit each other. */
export function loadControlPolicy(directory: string): ControlPolicy {
  const { policy, fields } = loadPolicy(directory);
  const parsed = fieldsSchema.safeParse(fields);
  if (!parsed.success) {
    const [issue] = parsed.error.issues;
    throw new FormatError(`${directory}/policy.json: expected the spaces of an environment, got ${issue.path.join(".")}: ${issue.message}`);
  }
  const { environment, normaliser: saved } = parsed.data;
  const observationSpace = spaceFromJson(parsed.data.observationSpace);
  const actionSpace = spaceFromJson(parsed.data.actionSpace);
  const size = featureSize(observationSpace);
  if (size !== policy.config.observationSize)
    throw new FormatError(
      `${directory}/policy.json: expected observations of ${policy.config.observationSize} numbers, got ${describeSpace(observationSpace)}`,
    );
  if (!saved) return { policy, environment, observationSpace, actionSpace };
  const normaliser = new Normaliser(size, { rewards: false, clipObservation: saved.clipObservation, epsilon: saved.epsilon });
  normaliser.restoreState(saved.statistics as never);
  return { policy, environment, observationSpace, actionSpace, normaliser };
}

/** @throws UsageError unless an environment has the spaces that a policy was trained with. */
export function checkSpaces(
  { environment, observationSpace, actionSpace }: Pick<ControlPolicy, "environment" | "observationSpace" | "actionSpace">,
  other: { readonly name?: string; readonly observationSpace: Space; readonly actionSpace: Space },
): void {
  for (const [what, own, theirs] of [
    ["observations", observationSpace, other.observationSpace],
    ["actions", actionSpace, other.actionSpace],
  ] as const)
    if (describeSpace(own) !== describeSpace(theirs))
      throw new UsageError(
        `policy: expected an environment with ${what} in ${describeSpace(own)} (it was trained in ${environment}), got ${describeSpace(theirs)}${other.name ? ` of ${other.name}` : ""}`,
        { hint: `Use ${environment}, or train a policy for the other environment.` },
      );
}
