// An optimiser over flat buffers: parameters are updated in place, moments are flat buffers of their own that a checkpoint writes
// and reads in place. One interface for elementwise optimisers and for Muon, which has both kinds of update inside.
import { BackendError, CheckpointError, invariant, NotFiniteError, ShapeError, UsageError } from "../base/errors.ts";
import type { Backend } from "../runtime/backend.ts";
import { alignmentBytes, allocate, type TensorBuffer } from "../runtime/buffer.ts";
import type { FlatBuffer, FlatLeaf } from "../runtime/flat.ts";
import { bytesPerElement } from "../tensor/dtype.ts";
import { checkSameLayout } from "./chunks.ts";
import { ElementwiseUpdate, type Span, type Update } from "./elementwise-update.ts";
import { checkGroupNames, type GroupOptions, type GroupSettings, groupSettings } from "./groups.ts";
import { checkFusedRows, type MuonLeaf, MuonUpdate } from "./muon.ts";
import type { MuonOptions } from "./muon-options.ts";
import { type OptimizerOptions, parseOptimizerOptions, type ResolvedOptimizerOptions, updateRule } from "./optimizer-options.ts";
import { adam } from "./rules/adam.ts";

export interface StepOptions {
  /** Learning rate of this step. Default: that of the options. */
  learningRate?: number;
  /** Factor of the gradients: a clipping factor, or 1 over the number of accumulated batches. Default 1. */
  gradientScale?: number;
}

export interface OptimizerExtras {
  /** Rows of each matrix that a leaf holds one below the other, by the path of the leaf: `[out_q, out_k, out_v]`. Used by Muon. */
  fusedRows?: Readonly<Record<string, readonly number[]>>;
}

export interface Optimizer extends Disposable {
  /** As given, with all defaults. */
  readonly options: ResolvedOptimizerOptions;
  /** Updates so far. Part of `state()`; set it only when the moments were read back without it. */
  stepCount: number;
  /**
   * One update of the parameters from the gradients, in place.
   * @throws UsageError for a learning rate below 0, NotFiniteError for a factor that is not finite; nothing has changed then.
   */
  step(options?: StepOptions): void;
  /**
   * The live state: moments as flat buffers, and `stepCount` (i64, rank 0). Writing these buffers saves the optimiser and reading
   * into them restores it, bit for bit.
   */
  state(): Readonly<Record<string, TensorBuffer>>;
  /** Copies a saved state over the present one. @throws CheckpointError when names, dtypes or sizes differ; nothing has changed then. */
  restore(state: Readonly<Record<string, TensorBuffer>>): void;
  dispose(): void;
}

/**
 * An optimiser of `parameters`, which it changes in place, by `gradients`, which it only reads. Both keep their memory.
 * @param groups What differs for groups of the layout, by name.
 * @throws UsageError for wrong options or groups, ShapeError for gradients of another layout or parameters that are not f32 or f64.
 */
export function createOptimizer(
  backend: Backend,
  options: OptimizerOptions,
  parameters: FlatBuffer<unknown>,
  gradients: FlatBuffer<unknown>,
  groups: Readonly<Record<string, GroupOptions>> = {},
  { fusedRows = {} }: OptimizerExtras = {},
): Optimizer {
  const resolved = parseOptimizerOptions(options);
  const { layout } = parameters;
  checkSameLayout("optimizer", parameters, gradients);
  if (layout.dtype !== "f32" && layout.dtype !== "f64")
    throw new ShapeError(`optimizer: expected parameters of f32 or f64, got ${layout.dtype}`);
  checkFusedRows(layout, fusedRows);
  const settings = groupSettings(layout, groups, { weightDecay: resolved.weightDecay });
  if (resolved.kind === "muon") {
    const rest = groupSettings(layout, groups, resolved.adamw);
    return new ComposedOptimizer(resolved, muonUpdates(backend, resolved, parameters, gradients, settings, rest, fusedRows));
  }
  const spans = layout.groups.map(({ name, start, end }) => ({ start, end, settings: settingsOf(settings, name) }));
  const { maximize } = resolved;
  const update = new ElementwiseUpdate(backend, resolved.kind, { rule: updateRule(resolved), parameters, gradients, spans, maximize });
  return new ComposedOptimizer(resolved, { "": update });
}

/** Muon for the matrices, AdamW for the other leaves and for the groups that the options name. */
function muonUpdates(
  backend: Backend,
  options: MuonOptions,
  parameters: FlatBuffer<unknown>,
  gradients: FlatBuffer<unknown>,
  matrixSettings: ReadonlyMap<string, GroupSettings>,
  restSettings: ReadonlyMap<string, GroupSettings>,
  fusedRows: Readonly<Record<string, readonly number[]>>,
): Record<string, Update> {
  const { layout } = parameters;
  checkGroupNames(layout, options.adamwGroups);
  const align = alignmentBytes / bytesPerElement[layout.dtype];
  const isMatrix = ({ shape, length, group }: FlatLeaf): boolean =>
    shape.length === 2 && length > 0 && !options.adamwGroups.includes(group);
  const matrices: MuonLeaf[] = [];
  const spans: Span[] = [];
  for (const leaf of layout.leaves) {
    if (isMatrix(leaf)) {
      matrices.push({ leaf, settings: settingsOf(matrixSettings, leaf.group), rows: fusedRows[leaf.path] ?? [leaf.shape[0]] });
      continue;
    }
    const settings = settingsOf(restSettings, leaf.group);
    const end = leaf.offset + Math.ceil(leaf.length / align) * align;
    const last = spans.at(-1);
    // Neighbours of one group are one span, padding included.
    if (last?.end === leaf.offset && last.settings === settings) spans[spans.length - 1] = { ...last, end };
    else spans.push({ start: leaf.offset, end, settings });
  }
  const { maximize } = options;
  const rule = adam({ kind: "adamw", ...options.adamw });
  return {
    "": new MuonUpdate(backend, options, parameters, gradients, matrices),
    "adamw.": new ElementwiseUpdate(backend, "muon's adamw", { rule, parameters, gradients, spans, maximize }),
  };
}

function settingsOf(settings: ReadonlyMap<string, GroupSettings>, group: string): GroupSettings {
  const found = settings.get(group);
  invariant(found !== undefined, `no settings for group "${group}"`);
  return found;
}

/** Updates that take their steps together. The keys are prefixes of the names of their states. */
class ComposedOptimizer implements Optimizer {
  readonly options: ResolvedOptimizerOptions;
  readonly #updates: readonly Update[];
  readonly #state: Readonly<Record<string, TensorBuffer>>;
  /** A buffer like the moments, so that a checkpoint restores the whole state by reading into it. */
  readonly #stepCount = allocate("i64", []);
  #disposed = false;

  constructor(options: ResolvedOptimizerOptions, updates: Readonly<Record<string, Update>>) {
    this.options = options;
    this.#updates = Object.values(updates);
    this.#state = Object.fromEntries([
      ["stepCount", this.#stepCount] as const,
      ...Object.entries(updates).flatMap(([prefix, { state }]) =>
        Object.entries(state).map(([name, buffer]) => [prefix + name, buffer] as const),
      ),
    ]);
  }

  get stepCount(): number {
    return Number(this.#stepCount.data[0]);
  }

  set stepCount(count: number) {
    if (!(Number.isSafeInteger(count) && count >= 0)) throw new UsageError(`optimizer: expected a step count of at least 0, got ${count}`);
    this.#stepCount.data[0] = BigInt(count);
  }

  step({ learningRate = this.options.learningRate, gradientScale = 1 }: StepOptions = {}): void {
    this.#refuseDisposed();
    if (!(learningRate >= 0 && Number.isFinite(learningRate)))
      throw new UsageError(`optimizer: expected a learning rate of at least 0, got ${learningRate}`, {
        hint: "A schedule gives multipliers of at least 0; look at the base rate.",
      });
    if (!Number.isFinite(gradientScale))
      throw new NotFiniteError(`optimizer: expected a finite gradient scale, got ${gradientScale}`, {
        hint: "The gradient norm is not finite: skip this step, or lower the learning rate.",
      });
    const step = this.stepCount + 1;
    for (const update of this.#updates) update.run({ step, learningRate, gradientScale });
    this.stepCount = step;
  }

  state(): Readonly<Record<string, TensorBuffer>> {
    return this.#state;
  }

  restore(state: Readonly<Record<string, TensorBuffer>>): void {
    this.#refuseDisposed();
    const describe = (buffers: Readonly<Record<string, TensorBuffer>>): string =>
      Object.entries(buffers)
        .map(([name, { dtype, shape }]) => `${name} ${dtype}[${shape.join(", ")}]`)
        .sort()
        .join(", ");
    if (describe(state) !== describe(this.#state))
      throw new CheckpointError(`optimizer "${this.options.kind}": expected the state ${describe(this.#state)}, got ${describe(state)}`, {
        hint: "Resume with the optimiser, options and groups that the run was started with.",
      });
    for (const [name, { data }] of Object.entries(this.#state)) (data as Float64Array).set(state[name].data as Float64Array);
  }

  dispose(): void {
    if (this.#disposed) return;
    this.#disposed = true;
    for (const update of this.#updates) update.dispose();
  }

  [Symbol.dispose](): void {
    this.dispose();
  }

  #refuseDisposed(): void {
    if (this.#disposed) throw new BackendError("optimizer: this optimiser was disposed");
  }
}
