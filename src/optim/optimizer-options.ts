// Every optimiser with its options, discriminated by `kind`; names and defaults are those of torch.optim in camelCase
// (betas → beta1 and beta2, eps → epsilon), so that a recipe written for it gives the same updates.
import { z } from "zod";
import { nearest, UsageError } from "../base/errors.ts";
import { parseOptions, show } from "../base/schema.ts";
import { muonSchema } from "./muon-options.ts";
import { adagrad, adagradSchema } from "./rules/adagrad.ts";
import { adam, adamSchema, adamwSchema } from "./rules/adam.ts";
import { adamax, adamaxSchema, nadam, nadamSchema, radam, radamSchema } from "./rules/adam-variants.ts";
import { lion, lionSchema } from "./rules/lion.ts";
import { rmsprop, rmspropSchema, rmspropTfLikeSchema } from "./rules/rmsprop.ts";
import { sgd, sgdSchema } from "./rules/sgd.ts";
import type { UpdateRule } from "./update-rule.ts";

const schemas = [
  adamSchema,
  adamwSchema,
  nadamSchema,
  radamSchema,
  adamaxSchema,
  sgdSchema,
  rmspropSchema,
  rmspropTfLikeSchema,
  adagradSchema,
  lionSchema,
  muonSchema,
] as const;

/** Every optimiser with its options, discriminated by `kind`. */
export const optimizerSchema = z.discriminatedUnion("kind", schemas);

function withoutRate(schema: (typeof schemas)[number]): z.ZodType {
  const { learningRate: _, ...shape } = schema.shape;
  // omit() refuses a schema with checks across fields, none of which is about the rate.
  return z
    .strictObject(shape)
    .check(...((schema.def.checks ?? []) as []))
    .describe(schema.description ?? "");
}

type WithoutRate<S> = S extends z.ZodObject<infer Shape, infer Config> ? z.ZodObject<Omit<Shape, "learningRate">, Config> : never;
type WithoutRates<S extends readonly unknown[]> = { -readonly [I in keyof S]: WithoutRate<S[I]> };

/** The same for a training, whose own `learningRate`, times its schedule, is the rate of every step. */
export const trainingOptimizerSchema = z.discriminatedUnion("kind", schemas.map(withoutRate) as unknown as WithoutRates<typeof schemas>);

/** What a configuration holds; options left out have their defaults. */
export type OptimizerOptions = z.input<typeof optimizerSchema>;
export type ResolvedOptimizerOptions = z.output<typeof optimizerSchema>;
export type OptimizerKind = ResolvedOptimizerOptions["kind"];
export type ElementwiseOptions = Exclude<ResolvedOptimizerOptions, { kind: "muon" }>;

const rules: { [K in ElementwiseOptions["kind"]]: (options: Extract<ElementwiseOptions, { kind: K }>) => UpdateRule } = {
  adam,
  adamw: adam,
  nadam,
  radam,
  adamax,
  sgd,
  rmsprop,
  "rmsprop-tf-like": rmsprop,
  adagrad,
  lion,
};

/** The formula of an elementwise optimiser. */
export function updateRule(options: ElementwiseOptions): UpdateRule {
  return (rules[options.kind] as (options: ElementwiseOptions) => UpdateRule)(options);
}

/**
 * Options with their defaults, through the schema of the one kind, so that a mistake is told in that kind's words.
 * @throws UsageError for an unknown kind (naming the nearest), an unknown option or a value out of range.
 */
export function parseOptimizerOptions(options: OptimizerOptions): ResolvedOptimizerOptions {
  const schema = schemas.find((one) => one.shape.kind.value === options.kind);
  if (schema) return parseOptions(schema as z.ZodObject, options) as ResolvedOptimizerOptions;
  const kinds = schemas.map((one) => one.shape.kind.value);
  const guess = nearest(String(options.kind), kinds);
  throw new UsageError(`optimizer: expected kind to be one of ${kinds.join(", ")}, got ${show(options.kind)}`, {
    hint: guess === undefined ? undefined : `Did you mean "${guess}"?`,
  });
}
