// An optimiser of a language model's weights: what of them is decayed, and what Muon may touch.
import type { ParameterSpec } from "../nn/parameter.ts";
import { createOptimizer, type Optimizer, type OptimizerOptions } from "../optim/index.ts";
import type { Backend } from "../runtime/backend.ts";
import type { FlatBuffer } from "../runtime/flat.ts";
import { flatten } from "../tensor/tree.ts";

/**
 * Norms, biases and positions are not decayed. Muon is for matrices between hidden layers: embeddings and the output matrix stay with
 * AdamW (Jordan et al. 2024) unless `adamwGroups` says otherwise, and matrices that are stored as one are orthogonalised each by itself.
 * @throws UsageError for options that do not fit each other or the parameters.
 */
export function createModelOptimizer<T>(
  backend: Backend,
  { specs, parameters }: { specs: T; parameters: FlatBuffer<T> },
  gradients: FlatBuffer<unknown>,
  options: OptimizerOptions,
): Optimizer {
  const keepsEmbeddings =
    options.kind === "muon" && !options.adamwGroups?.length && parameters.layout.groups.some(({ name }) => name === "embedding");
  const chosen = keepsEmbeddings ? { ...options, adamwGroups: ["embedding"] } : options;
  const fused = flatten<ParameterSpec>(specs as never).filter(([, { parts, shape }]) => parts && shape.length === 2);
  const fusedRows = Object.fromEntries(fused.map(([path, { parts }]) => [path, (parts ?? []).map(({ rows }) => rows)]));
  return createOptimizer(backend, chosen, parameters, gradients, { plain: { weightDecay: 0 } }, { fusedRows });
}
