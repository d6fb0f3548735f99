// A program: a traced function, compiled once, run many times over memory that it is bound to.
import { BackendError, LongwaveError, ShapeError } from "../base/errors.ts";
import type { DType } from "../tensor/dtype.ts";
import { Graph, type Shape, Tensor } from "../tensor/graph.ts";
import { liveNodes, type OnnxModel, toOnnx } from "../tensor/onnx.ts";
import { flatten, type MapTree, mapTree, type Tree, unflatten } from "../tensor/tree.ts";
import type { Backend, Binding, OptimizationLevel, ProfileEvent, Session, SessionOptions } from "./backend.ts";
import { allocate, sizeOf, type TensorBuffer } from "./buffer.ts";

/** dtype and shape of one input. A name in the shape is a size that is only known at run time. */
export interface TensorSpec<D extends DType = DType> {
  readonly dtype: D;
  readonly shape: Shape;
}

export const spec = <D extends DType>(dtype: D, shape: Shape): TensorSpec<D> => ({ dtype, shape });

export interface CompileOptions {
  /** Appears in errors and profiles. */
  name?: string;
  /** Default "all"; "basic" for programs with float64, because higher levels fuse products with factors kept in float32. */
  optimization?: OptimizationLevel;
  /** Threads of its own instead of the shared pool (1 for tiny programs). */
  threads?: number;
  /** Record a per-operator profile. */
  profile?: boolean;
  /**
   * Buffers for some inputs, by path: they become weights that the session refers to. With `prepack` (default true) it holds a packed
   * copy as well, and later updates of the buffers go unseen; without, updates are seen at once.
   */
  weights?: ReadonlyMap<string, TensorBuffer>;
  prepack?: boolean;
}

/** The same tree with buffers for leaves; a leaf whose dtype is known as a literal gives a typed array of that kind. */
export type BufferTree<T> = T extends { readonly dtype: infer D; readonly shape: unknown }
  ? TensorBuffer<D extends DType ? D : DType>
  : { [K in keyof T]: BufferTree<T[K]> };
export type PartialTree<T> = T extends { readonly dtype: unknown; readonly shape: unknown }
  ? T | undefined
  : { [K in keyof T]?: PartialTree<T[K]> };

/**
 * Traces `fn` over symbolic tensors and compiles what its outputs need.
 * @throws ShapeError from the operators of `fn`; BackendError when ONNX Runtime refuses the graph.
 */
export function compile<I, O>(
  backend: Backend,
  fn: (inputs: MapTree<I, Tensor>) => O,
  inputs: I,
  options: CompileOptions = {},
): Program<I, O> {
  const traced = new TracedProgram(backend, fn, inputs, options);
  return new Program(traced, backend.createSession(traced.model.bytes, traced.settings));
}

/** {@link compile}, with ONNX Runtime's part (most of the time where weights are packed) on a pool thread. */
export async function compileAsync<I, O>(
  backend: Backend,
  fn: (inputs: MapTree<I, Tensor>) => O,
  inputs: I,
  options: CompileOptions = {},
): Promise<Program<I, O>> {
  const traced = new TracedProgram(backend, fn, inputs, options);
  return new Program(traced, await backend.createSessionAsync(traced.model.bytes, traced.settings));
}

/**
 * Two programs of one trace: `shared` refers to the weights and is there at once; `pack` makes the one with a packed copy, on a pool thread too.
 * @param options with `weights`.
 */
export function compileTwice<I, O>(
  backend: Backend,
  fn: (inputs: MapTree<I, Tensor>) => O,
  inputs: I,
  options: CompileOptions,
): { shared: Promise<Program<I, O>>; pack: () => Promise<Program<I, O>> } {
  const traced = new TracedProgram(backend, fn, inputs, options);
  const create = async (prepack: boolean): Promise<Program<I, O>> =>
    new Program(traced, await backend.createSessionAsync(traced.model.bytes, { ...traced.settings, prepack }));
  return { shared: create(false), pack: () => create(true) };
}

/** A function as an ONNX graph, before there is a session. */
class TracedProgram<I, O> {
  readonly name: string;
  readonly spec: I;
  readonly outputs: O;
  readonly paths = new Map<Tensor, string>();
  readonly outputPaths: readonly string[];
  readonly inputTensors: ReadonlyMap<string, Tensor>;
  readonly model: OnnxModel;
  readonly settings: SessionOptions;

  constructor(backend: Backend, fn: (inputs: MapTree<I, Tensor>) => O, inputs: I, options: CompileOptions) {
    this.name = options.name ?? "program";
    this.spec = inputs;
    const graph = new Graph();
    const traced = mapTree(inputs, (leaf, path) => {
      const tensor = graph.input(path, leaf.dtype as DType, leaf.shape);
      this.paths.set(tensor, path);
      return tensor;
    });
    this.inputTensors = new Map(flatten<Tensor>(traced as never));
    this.outputs = fn(traced);
    const leaves = flatten<Tensor>(this.outputs as never);
    for (const [path, leaf] of leaves) {
      if (!(leaf instanceof Tensor))
        throw new LongwaveError(`${this.name}: expected the traced function to return tensors, got something else at "${path}"`);
    }
    this.outputPaths = leaves.map(([path]) => path);
    const weights = this.#weights(options.weights ?? new Map());
    const tensors = leaves.map(([, leaf]) => leaf);
    if (weights.size > 0) refuseFoldableNodes(this.name, tensors, new Set(weights.keys()));
    this.model = toOnnx(graph, tensors, {
      initializers: new Set(weights.keys()),
      threads: options.threads ?? backend.threads,
      packs: options.prepack !== false,
      operators: backend.operators,
    });
    const { threads, profile, prepack } = options;
    const hasFloat64 = [...this.inputTensors.values(), ...tensors].some(({ dtype }) => dtype === "f64");
    const optimization = options.optimization ?? (hasFloat64 ? "basic" : "all");
    const initializers = new Map(this.model.initializers.map(({ tensor, name }) => [name, weights.get(tensor) as TensorBuffer]));
    this.settings = { optimization, threads, profile, prepack, initializers, ownOperators: this.model.hasOwnOperators };
  }

  #weights(buffers: ReadonlyMap<string, TensorBuffer>): Map<Tensor, TensorBuffer> {
    const weights = new Map<Tensor, TensorBuffer>();
    for (const [path, buffer] of buffers) {
      const tensor = this.inputTensors.get(path);
      if (!tensor) throw new ShapeError(`${this.name}: no input "${path}" for a shared weight`);
      check(`${this.name}: weight "${path}"`, tensor, buffer, new Map());
      weights.set(tensor, buffer);
    }
    return weights;
  }
}

export class Program<I, O> {
  readonly name: string;
  /** ONNX nodes before ONNX Runtime's own optimisation. */
  readonly nodeCount: number;
  /** Bytes of the serialised graph, constants included, shared weights excluded. */
  readonly modelBytes: number;
  /** Bytes of the shared weights of which the session holds packed copies, as far as their operators tell. */
  readonly packedBytes: number;
  readonly #spec: I;
  readonly #outputs: O;
  readonly #onnx: Pick<OnnxModel, "inputs" | "outputs">;
  readonly #paths: ReadonlyMap<Tensor, string>;
  readonly #outputPaths: readonly string[];
  readonly #session: Session;
  readonly #inputTensors: ReadonlyMap<string, Tensor>;
  #disposed = false;

  /** Use {@link compile}. */
  constructor(traced: TracedProgram<I, O>, session: Session) {
    this.name = traced.name;
    this.nodeCount = traced.model.nodeCount;
    this.modelBytes = traced.model.bytes.byteLength;
    this.packedBytes = traced.settings.prepack === false ? 0 : traced.model.packedBytes;
    this.#spec = traced.spec;
    this.#outputs = traced.outputs;
    this.#onnx = { inputs: traced.model.inputs, outputs: traced.model.outputs };
    this.#paths = traced.paths;
    this.#outputPaths = traced.outputPaths;
    this.#inputTensors = traced.inputTensors;
    this.#session = session;
  }

  /**
   * Fixes the memory of the program. Inputs and outputs that are left out are allocated (their sizes must be known).
   * The same buffer may be an input and an output: the program then updates it in place, which is right only when the output is
   * computed elementwise from it, or by an operator that says so.
   */
  bind(
    inputs: PartialTree<MapTree<I, TensorBuffer>> = {} as never,
    outputs: PartialTree<MapTree<O, TensorBuffer>> = {} as never,
  ): BoundProgram<I, O> {
    this.#refuseDisposed();
    const given = new Map(flatten<TensorBuffer>(inputs as Tree<TensorBuffer>));
    const wanted = new Map(flatten<TensorBuffer>(outputs as Tree<TensorBuffer>));
    for (const path of given.keys()) if (!this.#inputTensors.has(path)) throw new ShapeError(`${this.name}: no input "${path}" to bind`);
    for (const path of wanted.keys())
      if (!this.#outputPaths.includes(path)) throw new ShapeError(`${this.name}: no output "${path}" to bind`);
    const sizes = new Map<string, number>();
    const inputBuffers = new Map<string, TensorBuffer>();
    const sessionInputs = new Map<string, TensorBuffer>();
    for (const [path, tensor] of this.#inputTensors) {
      const buffer = given.get(path);
      if (buffer) {
        check(`${this.name}: input "${path}"`, tensor, buffer, sizes);
        inputBuffers.set(path, buffer);
      }
    }
    for (const { tensor, name } of this.#onnx.inputs) {
      const path = this.#paths.get(tensor) as string;
      let buffer = inputBuffers.get(path);
      if (!buffer) {
        buffer = allocate(tensor.dtype, resolve(`${this.name}: input "${path}"`, tensor, sizes));
        inputBuffers.set(path, buffer);
      }
      sessionInputs.set(name, buffer);
    }
    const outputBuffers = new Map<string, TensorBuffer>();
    const sessionOutputs = new Map<string, TensorBuffer>();
    for (const [index, { tensor, name }] of this.#onnx.outputs.entries()) {
      const path = this.#outputPaths[index];
      let buffer = wanted.get(path);
      if (buffer) check(`${this.name}: output "${path}"`, tensor, buffer, sizes);
      else buffer = allocate(tensor.dtype, resolve(`${this.name}: output "${path}"`, tensor, sizes));
      outputBuffers.set(path, buffer);
      sessionOutputs.set(name, buffer);
    }
    const names = {
      inputs: new Map(this.#onnx.inputs.map(({ tensor, name }) => [this.#paths.get(tensor) as string, { name, tensor }])),
      outputs: new Map(this.#onnx.outputs.map(({ tensor, name }, index) => [this.#outputPaths[index], { name, tensor }])),
    };
    return new BoundProgram(
      this.name,
      this.#session.bind(sessionInputs, sessionOutputs),
      // Inputs that no output depends on have no memory: they are left out of the tree.
      mapTree(this.#spec, (leaf, path) => inputBuffers.get(path) ?? (leaf as unknown as TensorBuffer)) as unknown as BufferTree<I>,
      unflatten(this.#outputs, outputBuffers) as unknown as BufferTree<O>,
      names,
    );
  }

  /** Binds, runs once and returns the outputs: for tests, scripts and programs that run rarely. */
  run(inputs: MapTree<I, TensorBuffer>): BufferTree<O> {
    const bound = this.bind(inputs as PartialTree<MapTree<I, TensorBuffer>>);
    try {
      bound.run();
      return bound.outputs;
    } finally {
      bound.dispose();
    }
  }

  /** Rows of the profile since compilation; needs the option `profile`. Ends profiling. */
  endProfile(): ProfileEvent[] {
    this.#refuseDisposed();
    return this.#session.endProfile();
  }

  dispose(): void {
    this.#disposed = true;
    this.#session.dispose();
  }

  [Symbol.dispose](): void {
    this.dispose();
  }

  #refuseDisposed(): void {
    if (this.#disposed) throw new BackendError(`${this.name}: this program was disposed`);
  }
}

interface Slot {
  readonly name: string;
  readonly tensor: Tensor;
}

/** A program over fixed memory: write into `inputs`, call `run`, read `outputs`. */
export class BoundProgram<I, O> {
  readonly inputs: BufferTree<I>;
  readonly outputs: BufferTree<O>;
  readonly #name: string;
  readonly #binding: Binding;
  readonly #slots: { inputs: ReadonlyMap<string, Slot>; outputs: ReadonlyMap<string, Slot> };

  /** Use {@link Program.bind}. */
  constructor(
    name: string,
    binding: Binding,
    inputs: BufferTree<I>,
    outputs: BufferTree<O>,
    slots: { inputs: ReadonlyMap<string, Slot>; outputs: ReadonlyMap<string, Slot> },
  ) {
    this.#name = name;
    this.#binding = binding;
    this.inputs = inputs;
    this.outputs = outputs;
    this.#slots = slots;
  }

  /** Runs on this thread and the pool, and returns when the outputs are written. */
  run(): void {
    this.#binding.run();
  }

  /** Runs while the event loop goes on. An aborted signal stops it: AbortedError. */
  runAsync(signal?: AbortSignal): Promise<void> {
    return this.#binding.runAsync(signal);
  }

  /** Other memory for one input, by path; symbolic dimensions may change. Outputs that depend on them must be set as well. */
  setInput(path: string, buffer: TensorBuffer): void {
    this.#set("input", this.#slots.inputs.get(path), path, buffer, (name) => this.#binding.setInput(name, buffer));
  }

  setOutput(path: string, buffer: TensorBuffer): void {
    this.#set("output", this.#slots.outputs.get(path), path, buffer, (name) => this.#binding.setOutput(name, buffer));
  }

  dispose(): void {
    this.#binding.dispose();
  }

  [Symbol.dispose](): void {
    this.dispose();
  }

  #set(kind: string, slot: Slot | undefined, path: string, buffer: TensorBuffer, apply: (name: string) => void): void {
    if (!slot) throw new ShapeError(`${this.#name}: no ${kind} "${path}" that the program uses`);
    check(`${this.#name}: ${kind} "${path}"`, slot.tensor, buffer, new Map());
    apply(slot.name);
  }
}

/** Shape and dtype of a buffer against the declaration; learns the sizes of symbolic dimensions. */
function check(what: string, tensor: Tensor, buffer: TensorBuffer, sizes: Map<string, number>): void {
  const fits =
    buffer.dtype === tensor.dtype &&
    buffer.shape.length === tensor.rank &&
    tensor.shape.every((dim, i) => {
      if (typeof dim === "number") return dim === buffer.shape[i];
      const known = sizes.get(dim);
      if (known === undefined) sizes.set(dim, buffer.shape[i]);
      return known === undefined || known === buffer.shape[i];
    });
  if (!fits) throw new ShapeError(`${what}: expected ${tensor}, got ${buffer.dtype}[${buffer.shape.join(", ")}]`);
  if (buffer.data.length !== sizeOf(buffer.shape))
    throw new ShapeError(`${what}: expected ${sizeOf(buffer.shape)} elements, got ${buffer.data.length}`);
}

function resolve(what: string, tensor: Tensor, sizes: ReadonlyMap<string, number>): number[] {
  return tensor.shape.map((dim) => {
    const size = typeof dim === "number" ? dim : sizes.get(dim);
    if (size === undefined) throw new ShapeError(`${what}: expected a buffer, because its dimension "${dim}" in ${tensor} is not known`);
    return size;
  });
}

/** ONNX Runtime folds nodes that depend on initializers alone, with the bytes of the (empty) file: wrong results. */
function refuseFoldableNodes(name: string, outputs: readonly Tensor[], weights: ReadonlySet<Tensor>): void {
  const fixed = new Set<Tensor>(weights);
  const derived = new Set<Tensor>(weights);
  for (const node of liveNodes(outputs)) {
    if (node.operator.name === "constant") {
      fixed.add(node.outputs[0]);
      continue;
    }
    if (!node.inputs.every((input) => fixed.has(input))) continue;
    for (const output of node.outputs) fixed.add(output);
    const culprit = node.inputs.find((input) => derived.has(input));
    if (!culprit || node.operator.name === "stopGradient") {
      if (culprit) derived.add(node.outputs[0]);
      continue;
    }
    throw new ShapeError(`${name}: ${node.operator.name} depends on shared weights alone${node.scope ? ` in ${node.scope}` : ""}`, {
      hint: "Compute such tensors once when the model is loaded, or bind the weights as inputs.",
    });
  }
}
