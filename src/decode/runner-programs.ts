// The programs of a runner, each compiled when it is first needed, and the calls that bind them to the cache and to memory of their own.
import { BackendError } from "../base/errors.ts";
import {
  type CachedEmission,
  decoderCached,
  readsPositions,
  readsRotary,
  treeEmissionFor,
  treeReadsPositions,
} from "../models/decoder/cached.ts";
import { type DecoderConfig, rotaryWidth } from "../models/decoder/config.ts";
import type { InferenceModel } from "../models/decoder/quantise.ts";
import type { Backend, ProfileEvent } from "../runtime/backend.ts";
import { allocate, type TensorBuffer } from "../runtime/buffer.ts";
import type { KVCache } from "../runtime/kv-cache.ts";
import { type CompileOptions, compile, compileAsync, compileTwice, type Program, spec } from "../runtime/program.ts";
import type { DType } from "../tensor/dtype.ts";
import type { Dim } from "../tensor/graph.ts";
import { flatten, mapTree } from "../tensor/tree.ts";
import type { RotaryRows } from "./rotary-rows.ts";
import { allocateRows, type Call, type RowBuffers, SequenceCall, type TargetFeatures, TreeCall } from "./runner-calls.ts";
import { TreeShape } from "./token-tree.ts";

export interface ProgramOptions {
  weights: "packed" | "shared" | "bound";
  emission: CachedEmission;
  profile: boolean;
  /** Sequences of a batched call. */
  batch: number;
  /** Positions in memory. */
  positions: number;
}

type Inputs = ReturnType<typeof inputSpecs>;
interface Outputs {
  logits?: unknown;
  hidden?: unknown;
  layers?: unknown;
  cache: unknown;
}
type AnyProgram = Program<Inputs, Outputs>;

/** Inputs of a program over S new tokens with R rows; those of a tree besides. */
function inputSpecs({ config, parameters }: InferenceModel, batch: number, time: Dim, rows: Dim, capacity: number, isTree: boolean) {
  const layer = () => {
    const shape = [batch, config.kvHeads, capacity, config.headWidth];
    return { key: spec("f32", shape), value: spec("f32", shape) };
  };
  const turns = () => spec("f32", [batch, time, rotaryWidth(config) / 2]);
  return {
    parameters: mapTree(parameters.tree, (leaf) => spec(leaf.dtype as DType, leaf.shape)),
    ids: spec("i32", [batch, time]),
    positions: spec("i32", [batch, time]),
    lengths: spec("i32", [batch]),
    total: spec("i32", []),
    rows: spec("i32", [rows]),
    cache: Array.from({ length: config.layers }, layer),
    ...(readsRotary(config) ? { rotary: { cosines: turns(), sines: turns() } } : {}),
    ...(isTree
      ? {
          tree: { bias: spec("f32", [1, 1, time, time]), slots: spec("i32", [1, time]), before: spec("i64", [2]), after: spec("i64", [2]) },
        }
      : {}),
  };
}

/** One for each runner, which checks what it is asked for; calls write into that runner's cache. */
export class RunnerPrograms {
  readonly #backend: Backend;
  readonly #model: InferenceModel;
  readonly #config: DecoderConfig;
  readonly #cache: KVCache;
  readonly #rotary: RotaryRows | undefined;
  readonly #options: ProgramOptions;
  readonly #batch: number;
  readonly #positions: number;
  #sequenceProgram: AnyProgram | undefined;
  #batchProgram: AnyProgram | undefined;
  #treeProgram: AnyProgram | undefined;
  /** That of one sequence, before its weights are packed. */
  #early: AnyProgram | undefined;
  #pack: (() => Promise<void>) | undefined;
  #packing: Promise<void> | undefined;
  #ahead: { readonly features: TargetFeatures; readonly done: Promise<void> } | undefined;
  #packNow = false;
  #features: TargetFeatures = {};
  #disposed = false;
  readonly #makeRows = (count: number): RowBuffers => allocateRows(this.#config, this.#features, count);

  constructor(backend: Backend, model: InferenceModel, cache: KVCache, rotary: RotaryRows | undefined, options: ProgramOptions) {
    this.#backend = backend;
    this.#model = model;
    this.#config = model.config;
    this.#cache = cache;
    this.#rotary = rotary;
    this.#options = options;
    this.#batch = options.batch;
    this.#positions = options.positions;
  }

  /** Rows that calls of one sequence return from now on. Their programs are compiled anew; calls bound before must not be run again. */
  provide(features: TargetFeatures): void {
    this.#features = features;
    this.#sequenceProgram?.dispose();
    this.#treeProgram?.dispose();
    this.endEarly();
    this.#sequenceProgram = undefined;
    this.#treeProgram = undefined;
  }

  get features(): TargetFeatures {
    return this.#features;
  }

  /** Bytes of the copies that were packed for kernels, about. */
  get packedBytes(): number {
    return this.#programs().reduce((sum, program) => sum + (program === this.#early ? 0 : program.packedBytes), 0);
  }

  endProfile(): ProfileEvent[] {
    return this.#programs().flatMap((program) => program.endProfile());
  }

  dispose(): void {
    this.#disposed = true;
    for (const program of this.#programs()) program.dispose();
  }

  refuseDisposed(): void {
    if (this.#disposed) throw new BackendError("DecoderRunner: this runner was disposed");
  }

  #programs(): AnyProgram[] {
    return [this.#early, this.#sequenceProgram, this.#batchProgram, this.#treeProgram].filter((program) => program !== undefined);
  }

  /** A call of any number of tokens and rows. */
  several(row: number, time: number): SequenceCall {
    return this.#varying(this.sequence(row, time, 1));
  }

  #varying(call: Call): SequenceCall {
    return new SequenceCall(call, this.#makeRows, readsPositions(this.#config, this.#options.emission));
  }

  /** Compiles the program of one sequence while the event loop goes on, unless it is there; with `early`, one before its weights are packed. */
  compileAhead(early: boolean, packNow: boolean): Promise<void> {
    this.#packNow ||= packNow;
    if (this.#early && this.#packNow) this.packed();
    if (this.#sequenceProgram || this.#early) return Promise.resolve();
    if (this.#ahead?.features !== this.#features) {
      const ahead = { features: this.#features, done: this.#compileLater(early) };
      this.#ahead = ahead;
      const clear = (): void => {
        if (this.#ahead === ahead) this.#ahead = undefined;
      };
      ahead.done.then(clear, clear);
    }
    return this.#ahead.done;
  }

  async #compileLater(early: boolean): Promise<void> {
    const features = this.#features;
    // Whoever could not wait has compiled it meanwhile, or needs another one.
    const isWanted = (): boolean => !this.#disposed && !this.#sequenceProgram && this.#features === features;
    const keep = (program: AnyProgram): void => {
      if (isWanted()) this.#sequenceProgram = program;
      else program.dispose();
    };
    const { outputs, specs, options } = this.#recipe(1, "S", "R");
    if (!early || !this.#packsApart) return keep(await compileAsync(this.#backend, outputs as never, specs, options));
    const { shared, pack } = compileTwice<Inputs, Outputs>(this.#backend, outputs as never, specs, options);
    const program: AnyProgram = await shared;
    if (!isWanted()) return program.dispose();
    this.#early = program;
    this.#pack = async () => keep(await pack());
    if (this.#packNow) this.packed();
  }

  /**
   * Whether reading a prompt before weights are packed pays: quantised weights cannot do without, the other backend packs when it is told not
   * to, and a profile would end with the early program.
   */
  get #packsApart(): boolean {
    const { weights, profile } = this.#options;
    if (weights !== "packed" || profile || this.#backend.name !== "native") return false;
    return flatten<TensorBuffer>(this.#model.parameters.tree as never).every(([, { dtype }]) => dtype === "f32");
  }

  /** A call of any number of tokens and rows before weights are packed; undefined where they are. */
  early(row: number, time: number): SequenceCall | undefined {
    return this.#early && this.#varying(this.#bind(this.#early, this.#cache.row(row), 1, time, this.#makeRows(1)));
  }

  get isEarly(): boolean {
    return this.#early !== undefined;
  }

  /** Packs the weights on a pool thread, once, where the early program is in use; resolves when that is done. */
  packed(): Promise<void> | undefined {
    if (!this.#early) return undefined;
    this.#packing ??= this.#pack?.();
    // Told to whoever awaits it.
    this.#packing?.catch(() => {});
    return this.#packing;
  }

  endEarly(): void {
    this.#early?.dispose();
    this.#early = undefined;
    this.#pack = undefined;
    this.#packing = undefined;
  }

  #compile(batch: number, time: Dim, rows: Dim, isTree = false): AnyProgram {
    const { outputs, specs, options } = this.#recipe(batch, time, rows, isTree);
    return compile(this.#backend, outputs as never, specs, options);
  }

  /** What a program computes of which inputs. */
  #recipe(
    batch: number,
    time: Dim,
    rows: Dim,
    isTree = false,
  ): { outputs: (inputs: never) => Outputs; specs: ReturnType<typeof inputSpecs>; options: CompileOptions } {
    // In the middle of a prompt: nobody would dispose of the program.
    this.refuseDisposed();
    const specs = inputSpecs(this.#model, batch, time, rows, this.#positions, isTree);
    const { weights, profile } = this.#options;
    const emission = isTree ? treeEmissionFor(this.#config, this.#options.emission) : this.#options.emission;
    const features = batch === 1 ? this.#features : {};
    const leaves = flatten<TensorBuffer>(this.#model.parameters.tree as never).map(([path, leaf]) => [`parameters.${path}`, leaf] as const);
    return {
      outputs: ({ parameters, ...inputs }: Record<string, unknown>) =>
        decoderCached(this.#config, parameters as never, inputs as never, emission, features) as Outputs,
      specs,
      options: {
        name: isTree ? "decode tree" : batch === 1 ? "decode" : `decode x ${batch}`,
        profile,
        ...(weights === "bound" ? {} : { weights: new Map(leaves), prepack: weights === "packed" }),
      },
    };
  }

  /** Tokens of one sequence, so many at a time, with so many rows. */
  sequence(row: number, time: number, rows: number): Call {
    this.#sequenceProgram ??= this.#compile(1, "S", "R");
    return this.#bind(this.#sequenceProgram, this.#cache.row(row), 1, time, this.#makeRows(rows));
  }

  /** A token of every sequence. */
  batched(): Call {
    this.#batchProgram ??= this.#compile(this.#batch, 1, this.#batch);
    return this.#bind(this.#batchProgram, this.#cache.layers, this.#batch, 1, allocateRows(this.#config, {}, this.#batch));
  }

  tree(row: number): TreeCall {
    this.#treeProgram ??= this.#compile(1, "S", "R", true);
    const tree = {
      bias: TreeShape.chain(0).bias,
      slots: allocate("i32", [1, 1]),
      before: allocate("i64", [2]),
      after: allocate("i64", [2]),
    };
    const call = this.#bind(this.#treeProgram, this.#cache.row(row), 1, 1, this.#makeRows(1), { tree });
    const emission = treeEmissionFor(this.#config, this.#options.emission);
    const positioned = treeReadsPositions(this.#config, emission);
    const rotary = this.#rotary && { rows: this.#rotary, row };
    return new TreeCall(call.bound, this.#makeRows, this.#positions, emission === "composed", positioned, rotary);
  }

  #bind(
    program: AnyProgram,
    cache: readonly { key: TensorBuffer; value: TensorBuffer }[],
    batch: number,
    time: number,
    { buffers, rows }: RowBuffers,
    extra: Readonly<Record<string, unknown>> = {},
  ): Call {
    const ids = allocate("i32", [batch, time]);
    const positions = allocate("i32", [batch, time]);
    const lengths = allocate("i32", [batch]);
    const total = allocate("i32", []);
    const count = buffers.get("logits")?.shape[0] ?? 0;
    const wanted = allocate("i32", [count]);
    for (let i = 0; i < count; i++) wanted.data[i] = i;
    const parameters = this.#options.weights === "bound" ? { parameters: this.#model.parameters.tree } : {};
    const layers = Object.fromEntries((this.#features.layers ?? []).map((layer) => [layer, buffers.get(`layers.${layer}`)]));
    const rotary = this.#rotary?.allocate(batch, time);
    const bound = program.bind(
      { ...parameters, ids, positions, lengths, total, rows: wanted, cache, ...(rotary ? { rotary } : {}), ...extra } as never,
      {
        ...(buffers.has("logits") ? { logits: buffers.get("logits") } : {}),
        cache,
        ...(buffers.has("hidden") ? { hidden: buffers.get("hidden") } : {}),
        ...(Object.values(layers).some(Boolean) ? { layers } : {}),
      } as never,
    );
    return {
      bound,
      ids: ids.data,
      positions: positions.data,
      lengths: lengths.data,
      total: total.data,
      rows,
      ...(rotary ? { rotary } : {}),
    };
  }
}
