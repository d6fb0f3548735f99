// From the graph of operators to an ONNX model: only what the outputs need is emitted, aliases cost no node,
// and the last real operator writes each output (an Identity in front of every output costs 5 % of a training step).
import { invariant, ShapeError } from "../base/errors.ts";
import { arrayOver, bytesPerElement, type DType, onnxType, type TypedArray } from "./dtype.ts";
import { elementCount, type Graph, type Node, type Shape, staticShape, type Tensor } from "./graph.ts";
import {
  type Float,
  type OnnxAttributeValue,
  type OnnxGraph,
  type OnnxNode,
  type OnnxTensor,
  type OnnxValue,
  onnxBytes,
} from "./onnx-proto.ts";

export const opset = 23;
export const contrib = "com.microsoft";
/** Operators of longwave's own, where the backend has kernels for them. */
export const own = "longwave";

export const float = (value: number): Float => ({ float: value });
/** Left out where it is undefined. */
export type OnnxAttribute = OnnxAttributeValue | undefined;

export interface OnnxModel {
  readonly bytes: Uint8Array;
  /** ONNX value names in the order of the graph's live inputs, shared initializers and outputs. */
  readonly inputs: readonly { tensor: Tensor; name: string }[];
  readonly initializers: readonly { tensor: Tensor; name: string }[];
  readonly outputs: readonly { tensor: Tensor; name: string }[];
  readonly nodeCount: number;
  /** Whether operators of longwave's own are among the nodes. */
  readonly hasOwnOperators: boolean;
  /** Bytes of the shared initializers of which ONNX Runtime keeps packed copies, if it is let. */
  readonly packedBytes: number;
}

export interface OnnxOptions {
  /** Inputs that become initializers whose bytes the session refers to. Default: none. */
  initializers?: ReadonlySet<Tensor>;
  /** Names for files that other programs read: of the inputs that are used, in the order of the graph's, and of the outputs. Default: short ones. */
  inputNames?: readonly string[];
  outputNames?: readonly string[];
  /** Threads that will run the program: blocks of rows are made large enough for all of them. Default 1. */
  threads?: number;
  /** Whether kernels may keep copies of shared initializers, which then never change. Default false. */
  packs?: boolean;
  /** Operators of the domain "longwave" that whoever runs the program has kernels for. Default: none. */
  operators?: ReadonlySet<string>;
}

/** Operators whose kernels pack their weights. */
const packing = new Set(["Gemm", "MatMul", "FusedMatMul", "MatMulNBits", "QMoE"]);

/** What external initializers point to: ONNX Runtime only checks that it exists; the bytes come from memory. */
export const externalLocation = ".";

export class Emitter {
  readonly nodes: OnnxNode[] = [];
  readonly constants: OnnxTensor[] = [];
  readonly threads: number;
  readonly #packs: boolean;
  readonly #shared: ReadonlySet<Tensor>;
  readonly operators: ReadonlySet<string>;
  /** What the outputs of the program and its nodes read; the rest need not be computed. */
  readonly used: ReadonlySet<Tensor>;
  /** Nodes so far, those of bodies included. */
  nodeCount = 0;
  hasOwnOperators = false;
  /** Values of which kernels keep copies. */
  readonly packed = new Set<string>();
  /** The list that grows: `nodes`, or that of a body. */
  #nodes = this.nodes;
  #names = new Map<Tensor, string>();
  #bodies = new Map<Graph, number>();
  #constantNames = new Map<string, string>();
  #temporaries = 0;
  #scope = "";

  constructor(used: ReadonlySet<Tensor>, { threads = 1, operators = new Set(), packs = false, initializers = new Set() }: OnnxOptions) {
    this.used = used;
    this.threads = threads;
    this.operators = operators;
    this.#packs = packs;
    this.#shared = initializers;
  }

  /** Tasks into which a kernel of our own cuts its work: threads are interrupted, and parts smaller than theirs let the others go on. */
  get tasks(): number {
    return this.threads === 1 ? 1 : 4 * this.threads;
  }

  /** Whether a kernel may keep a copy of a weight in an order of its own. */
  mayPack(weight: Tensor): boolean {
    return this.#packs && this.#shared.has(weight);
  }

  /** The ONNX value that holds `tensor`. */
  name(tensor: Tensor): string {
    const name = this.#names.get(tensor);
    invariant(name !== undefined, `${tensor.node?.operator.name ?? "input"} is used before it is emitted`);
    return name;
  }

  names(tensors: readonly Tensor[]): string[] {
    return tensors.map((tensor) => this.name(tensor));
  }

  /** `tensor` is the value `name`, without a node. */
  alias(tensor: Tensor, name: string): void {
    this.#names.set(tensor, name);
  }

  /** Reserves the value that the node must write for its output. */
  output(node: Node, index = 0): string {
    const tensor = node.outputs[index];
    let name = this.#names.get(tensor);
    if (name === undefined) {
      // Ids are unique within a graph; a body is traced in one of its own.
      const body = this.#bodies.get(tensor.graph);
      name = body === undefined ? `t${tensor.id}` : `b${body}t${tensor.id}`;
      this.#names.set(tensor, name);
    }
    return name;
  }

  temporary(): string {
    return `v${this.#temporaries++}`;
  }

  begin(node: Node): void {
    this.#scope = node.scope ? `${node.scope}/${node.operator.name}` : node.operator.name;
  }

  /** One ONNX node. Absent optional inputs and outputs are empty strings. */
  node(
    type: string,
    inputs: readonly string[],
    outputs: readonly string[],
    attributes: Record<string, OnnxAttribute> = {},
    domain = "",
  ): void {
    const attribute = Object.entries(attributes).flatMap(([name, value]) => (value === undefined ? [] : [[name, value] as const]));
    if (domain === own) this.hasOwnOperators = true;
    if (packing.has(type)) for (const input of inputs) this.packed.add(input);
    this.#nodes.push({ name: `${this.#scope}#${this.nodeCount++}`, opType: type, domain, input: inputs, output: outputs, attribute });
  }

  /** A node with one output, which is a new temporary value. */
  value(type: string, inputs: readonly string[], attributes: Record<string, OnnxAttribute> = {}, domain = ""): string {
    const output = this.temporary();
    this.node(type, inputs, [output], attributes, domain);
    return output;
  }

  /** Emits nodes in order: those of the program, or of a graph that was traced apart and whose inputs have names. */
  emit(nodes: readonly Node[]): void {
    for (const node of nodes) {
      this.begin(node);
      // Nothing to compute, and several kernels of ONNX Runtime are wrong there (TopK divides by 0, an Expand to 0 is optimised away).
      if (node.outputs.every(({ shape }) => elementCount(shape) === 0)) {
        for (const output of node.outputs) this.alias(output, this.empty(output));
      } else node.operator.emit(this, node);
    }
  }

  /** Whether what is emitted now is part of a body. */
  get insideBody(): boolean {
    return this.#nodes !== this.nodes;
  }

  /** Emits `graph`, whose inputs have names, among the nodes that are being written. */
  inline(graph: Graph, outputs: readonly Tensor[]): void {
    this.#bodies.set(graph, this.#bodies.size);
    const scope = this.#scope;
    this.emit(liveNodes(outputs));
    this.#scope = scope;
  }

  /** `graph` as the body of an operator such as Scan. Its nodes may use every value that is known here. */
  body(graph: Graph, outputs: readonly Tensor[]): OnnxGraph {
    const [outer, scope] = [this.#nodes, this.#scope];
    const nodes: OnnxNode[] = [];
    this.#nodes = nodes;
    const body = this.#bodies.size;
    this.#bodies.set(graph, body);
    const inputs = graph.inputs.map((tensor) => {
      const name = `b${body}i${tensor.id}`;
      this.#names.set(tensor, name);
      return valueInfo(name, tensor.dtype, tensor.shape);
    });
    this.emit(liveNodes(outputs));
    const results = this.results(outputs).map(({ tensor, name }) => valueInfo(name, tensor.dtype, tensor.shape));
    this.#nodes = outer;
    this.#scope = scope;
    return { name: `b${body}`, node: nodes, initializer: [], input: inputs, output: results };
  }

  /**
   * Outputs of the graph that is being written must be values that a node of it writes, once: inputs, constants, aliases and repeats get
   * an Identity, and so do outputs whose names are given.
   */
  results(outputs: readonly Tensor[], names?: readonly string[]): { tensor: Tensor; name: string }[] {
    const written = new Set(this.#nodes.flatMap((node) => node.output));
    const taken = new Set<string>();
    return outputs.map((tensor, index) => {
      let name = this.name(tensor);
      const wanted = names?.[index];
      if (wanted !== undefined) {
        this.node("Identity", [name], [wanted]);
        return { tensor, name: wanted };
      }
      if (!written.has(name) || taken.has(name)) name = this.value("Identity", [name]);
      taken.add(name);
      return { tensor, name };
    });
  }

  /** An int64 vector constant (shapes, axes). */
  ints(values: readonly number[]): string {
    return this.constant("i64", [values.length], BigInt64Array.from(values, BigInt));
  }

  /** A shape as an int64 vector; names are read at run time from values that have such a dimension. */
  sizes(shape: Shape): string {
    if (shape.every((dim) => typeof dim === "number")) return this.ints(shape as readonly number[]);
    const parts = shape.map((dim) => (typeof dim === "number" ? this.ints([dim]) : this.#size(dim)));
    return parts.length === 1 ? parts[0] : this.value("Concat", parts, { axis: 0 });
  }

  #size(dim: string): string {
    // Inputs were named first.
    for (const [{ shape }, name] of this.#names) {
      const axis = shape.indexOf(dim);
      if (axis >= 0) return this.value("Shape", [name], { start: axis, end: axis + 1 });
    }
    throw new ShapeError(`${this.#scope}: expected "${dim}" to be a dimension of another tensor of the program, got a new name`);
  }

  /** A constant for a tensor without elements. */
  empty({ dtype, shape }: Tensor): string {
    return this.constant(dtype, staticShape("empty", shape), arrayOver(dtype, new ArrayBuffer(0), 0, 0));
  }

  /** A scalar constant. */
  scalar(dtype: DType, value: number): string {
    const data =
      dtype === "f64"
        ? Float64Array.of(value)
        : dtype === "i64"
          ? BigInt64Array.of(BigInt(value))
          : dtype === "i32"
            ? Int32Array.of(value)
            : Float32Array.of(value);
    return this.constant(dtype, [], data);
  }

  constant(dtype: DType, shape: readonly number[], data: TypedArray): string {
    invariant(data.BYTES_PER_ELEMENT === bytesPerElement[dtype], `a constant of ${dtype} from ${data.constructor.name}`);
    const key =
      data.length <= 16
        ? `${dtype}[${shape}]${Array.from(data as ArrayLike<number | bigint>, (x) => (Object.is(x, -0) ? "-0" : String(x)))}`
        : undefined;
    const known = key === undefined ? undefined : this.#constantNames.get(key);
    if (known !== undefined) return known;
    const name = `c${this.constants.length}`;
    const bytes = new Uint8Array(data.buffer, data.byteOffset, data.byteLength);
    this.constants.push({ name, dims: shape, dataType: onnxType[dtype], data: bytes });
    if (key !== undefined) this.#constantNames.set(key, name);
    return name;
  }
}

/** Serialises what `outputs` need of the graph. */
export function toOnnx(graph: Graph, outputs: readonly Tensor[], options: OnnxOptions = {}): OnnxModel {
  const live = liveNodes(outputs);
  const used = new Set<Tensor>(outputs);
  for (const node of live) for (const input of node.inputs) used.add(input);
  const emitter = new Emitter(used, options);
  const shared = options.initializers ?? new Set<Tensor>();
  const inputs: { tensor: Tensor; name: string }[] = [];
  const initializers: { tensor: Tensor; name: string }[] = [];
  for (const tensor of graph.inputs) {
    if (!used.has(tensor)) continue;
    const name = options.inputNames?.[inputs.length] ?? `i${tensor.id}`;
    emitter.alias(tensor, name);
    (shared.has(tensor) ? initializers : inputs).push({ tensor, name });
  }
  emitter.emit(live);
  const results = emitter.results(outputs, options.outputNames);
  const bytes = onnxBytes({
    producer: "longwave",
    opsets: [
      { domain: "", version: opset },
      { domain: contrib, version: 1 },
      ...(emitter.hasOwnOperators ? [{ domain: own, version: 1 }] : []),
    ],
    graph: {
      name: "longwave",
      node: leavesLast(emitter.nodes),
      initializer: [...emitter.constants, ...initializers.map(external)],
      input: inputs.map(({ tensor, name }) => valueInfo(name, tensor.dtype, tensor.shape)),
      output: results.map(({ tensor, name }) => valueInfo(name, tensor.dtype, tensor.shape)),
    },
  });
  const { nodeCount, hasOwnOperators, packed } = emitter;
  const packedBytes = initializers.reduce((sum, { tensor, name }) => sum + (packed.has(name) ? bytesOf(tensor) : 0), 0);
  return { bytes, inputs, initializers, outputs: results, nodeCount, hasOwnOperators, packedBytes };
}

/**
 * ONNX Runtime executes depth first from the nodes that nothing consumes, the last one of the file first. Such leaves at the end, in
 * reverse, run in the order in which they were made: a weight's gradient next to the layer that it belongs to, while its operands are
 * in the cache and before their memory is needed again, instead of all of them at the end.
 */
function leavesLast(nodes: readonly OnnxNode[]): OnnxNode[] {
  const consumed = new Set(nodes.flatMap(consumedBy));
  const isLeaf = ({ output }: OnnxNode): boolean => output.every((name) => !consumed.has(name));
  return [...nodes.filter((node) => !isLeaf(node)), ...nodes.filter(isLeaf).reverse()];
}

/** The values that a node reads, in its body too. */
const consumedBy = ({ input, attribute }: OnnxNode): string[] => [
  ...input,
  ...attribute.flatMap(([, value]) => (typeof value === "object" && "node" in value ? value.node.flatMap(consumedBy) : [])),
];

/** The nodes that `outputs` depend on, in topological order. */
export function liveNodes(outputs: readonly Tensor[]): Node[] {
  const seen = new Set<Node>();
  const pending = outputs.flatMap(({ node }) => (node ? [node] : []));
  while (pending.length > 0) {
    const node = pending.pop() as Node;
    if (seen.has(node)) continue;
    seen.add(node);
    for (const input of node.inputs) if (input.node) pending.push(input.node);
  }
  return [...seen].sort((a, b) => a.index - b.index);
}

function external({ tensor, name }: { tensor: Tensor; name: string }): OnnxTensor {
  const dims = tensor.shape.map((dim) => {
    invariant(typeof dim === "number", "a shared initializer has a symbolic dimension");
    return dim;
  });
  return { name, dims, dataType: onnxType[tensor.dtype], data: { location: externalLocation, length: bytesOf(tensor) } };
}

const bytesOf = ({ shape, dtype }: Tensor): number => shape.reduce<number>((product, dim) => product * Number(dim), bytesPerElement[dtype]);

const valueInfo = (name: string, dtype: DType, shape: Shape): OnnxValue => ({ name, elemType: onnxType[dtype], shape });
