// The graph of named operators. A Tensor is a symbolic value: it has a dtype, a shape and the node that computes it, but no data.
// Nodes are appended in creation order, which is a topological order; derivatives only append more nodes to the same graph.
import { InvariantError, invariant, LongwaveError, ShapeError } from "../base/errors.ts";
import type { DType, TypedArray } from "./dtype.ts";
import type { Emitter } from "./onnx.ts";

/** A number, or the name of a size that is only known when the program runs. */
export type Dim = number | string;
export type Shape = readonly Dim[];

/** A product of dimensions: of its numbers, and its names. */
export interface DimProduct {
  readonly count: number;
  readonly names: readonly string[];
}

export interface TensorType {
  dtype: DType;
  shape: Shape;
}

export type AttributeValue = number | string | boolean | readonly (number | string)[] | TypedArray | Body | undefined;
/** A function over tensors as an attribute: it is traced when the operator is. */
export type Body = (...inputs: Tensor[]) => Tensor[];
export type Attributes = Readonly<Record<string, AttributeValue>>;

/** What a derivative rule sees. */
export interface VjpContext<A extends Attributes = Attributes> {
  readonly inputs: readonly Tensor[];
  readonly outputs: readonly Tensor[];
  readonly attributes: A;
  /** The cotangent of each output; undefined where the loss does not depend on it. */
  readonly cotangents: readonly (Tensor | undefined)[];
  /** Which inputs need a cotangent. A rule may skip the others. */
  readonly needs: readonly boolean[];
}

/** One operator: shape rule, derivative rule, emission. Adding one touches one file and its test. */
export interface Operator<A extends Attributes = Attributes> {
  readonly name: string;
  /** Types of the outputs. @throws ShapeError naming the operator and the shapes. */
  infer(inputs: readonly Tensor[], attributes: A): TensorType[];
  /** Cotangents of the inputs (vector–Jacobian product), built from differentiable operators. Absent: not differentiable. */
  vjp?(context: VjpContext<A>): (Tensor | undefined)[];
  /** Writes the ONNX nodes. */
  emit(emitter: Emitter, node: Node<A>): void;
}

export interface Node<A extends Attributes = Attributes> {
  readonly operator: Operator<A>;
  readonly inputs: readonly Tensor[];
  readonly attributes: A;
  readonly outputs: readonly Tensor[];
  readonly index: number;
  /** Where in the model it was made, such as `layers.3.attention`. */
  readonly scope: string;
}

export class Tensor {
  readonly graph: Graph;
  readonly dtype: DType;
  readonly shape: Shape;
  /** The node that computes it; undefined for an input of the graph. */
  readonly node: Node | undefined;
  /** Which output of the node it is. */
  readonly outputIndex: number;
  /** Unique within its graph. */
  readonly id: number;
  /** Path of an input, such as `params.layers.0.norm`. */
  readonly inputName: string | undefined;

  /** Made by Graph and operators only. */
  constructor(graph: Graph, type: TensorType, node: Node | undefined, outputIndex: number, inputName?: string) {
    this.graph = graph;
    this.dtype = type.dtype;
    this.shape = type.shape;
    this.node = node;
    this.outputIndex = outputIndex;
    this.id = graph.nextId();
    this.inputName = inputName;
  }

  get rank(): number {
    return this.shape.length;
  }

  toString(): string {
    return `${this.dtype}[${this.shape.join(", ")}]`;
  }
}

export class Graph {
  readonly nodes: Node[] = [];
  readonly inputs: Tensor[] = [];
  /** Small constants by content, so that `mul(x, 0.5)` twice is one constant. */
  readonly constants = new Map<string, Tensor>();
  /** What the names stand for that reshape gave to products of dimensions: `B_T` is B · T, `T_2` is 2 T. */
  readonly products = new Map<string, DimProduct>();
  #ids = 0;
  #scopes: string[] = [];

  nextId(): number {
    return this.#ids++;
  }

  input(name: string, dtype: DType, shape: Shape): Tensor {
    checkShape("input", shape);
    const tensor = new Tensor(this, { dtype, shape: [...shape] }, undefined, 0, name);
    this.inputs.push(tensor);
    return tensor;
  }

  get scope(): string {
    return this.#scopes.join(".");
  }

  enter(name: string): void {
    this.#scopes.push(name);
  }

  leave(): void {
    this.#scopes.pop();
  }
}

/** Names the part of the model that `body` builds: it appears in errors, node names and profiles. */
export function scope<T>(anchor: Tensor, name: string, body: () => T): T {
  anchor.graph.enter(name);
  try {
    return body();
  } catch (error) {
    throw locate(error, anchor.graph);
  } finally {
    anchor.graph.leave();
  }
}

/** The error with the place in the model at the end of its message, once. */
export function locate(error: unknown, graph: Graph): unknown {
  const scope = placeIn(graph);
  if (!(error instanceof LongwaveError) || scope === "") return error;
  // Scopes nest: the innermost one was added first, and the path of an outer one is its beginning.
  const tail = error.message.slice(error.message.lastIndexOf(" in ") + 4);
  if (!tail.startsWith(scope)) error.message += ` in ${scope}`;
  return error;
}

/** Applies an operator: appends a node and returns its outputs. Errors gain the place in the model. */
export function apply<A extends Attributes>(operator: Operator<A>, inputs: readonly Tensor[], attributes: A, graph?: Graph): Tensor[] {
  const owner = graph ?? inputs.find((input) => input instanceof Tensor)?.graph;
  for (const input of inputs) {
    if (!(input instanceof Tensor)) {
      throw new ShapeError(
        `${operator.name}: expected a tensor of the program being traced, got ${describe(input)}${owner ? at(owner) : ""}`,
        {
          hint: "Pass tensors given to the traced function; a number is allowed where the operator says so, other data becomes a tensor with constant().",
        },
      );
    }
  }
  invariant(owner !== undefined, `${operator.name} has neither inputs nor a graph`);
  for (const input of inputs) {
    if (input.graph !== owner) throw new ShapeError(`${operator.name}: expected tensors of one program, got tensors of two${at(owner)}`);
  }
  let types: TensorType[];
  try {
    types = operator.infer(inputs, attributes);
  } catch (error) {
    throw locate(error, owner);
  }
  const outputs: Tensor[] = [];
  const node: Node<A> = { operator, inputs, attributes, outputs, index: owner.nodes.length, scope: owner.scope };
  owner.nodes.push(node as unknown as Node);
  for (const [index, type] of types.entries()) outputs.push(new Tensor(owner, type, node as unknown as Node, index));
  return outputs;
}

/** {@link apply} for the usual operator with one output. */
export function apply1<A extends Attributes>(operator: Operator<A>, inputs: readonly Tensor[], attributes: A, graph?: Graph): Tensor {
  return apply(operator, inputs, attributes, graph)[0];
}

/** The backward pass of what has no scope bears its mark alone, which says nothing to a reader. */
const placeIn = ({ scope }: Graph): string => (/^'+$/.test(scope) ? "the backward pass" : scope);

const at = (graph: Graph): string => (graph.scope ? ` in ${placeIn(graph)}` : "");

function describe(value: unknown): string {
  if (value === null || value === undefined) return String(value);
  if (typeof value === "object") return value.constructor?.name ?? "an object";
  return `${typeof value} ${String(value)}`;
}

function checkShape(operator: string, shape: Shape): void {
  for (const dim of shape) {
    const fine = typeof dim === "number" ? Number.isSafeInteger(dim) && dim >= 0 : /^[A-Za-z_]\w*$/.test(dim);
    if (!fine) throw new ShapeError(`${operator}: expected non-negative integers or names as dimensions, got [${shape.join(", ")}]`);
  }
}

// ---- shape rules that several operators share

/** NumPy broadcasting. A name matches the same name or 1. @throws ShapeError */
export function broadcastShapes(operator: string, a: Shape, b: Shape): Dim[] {
  const rank = Math.max(a.length, b.length);
  const result: Dim[] = [];
  for (let i = 0; i < rank; i++) {
    const x = a[a.length - rank + i] ?? 1;
    const y = b[b.length - rank + i] ?? 1;
    if (x === y || y === 1) result.push(x);
    else if (x === 1) result.push(y);
    else throw new ShapeError(`${operator}: expected shapes that broadcast, got [${a.join(", ")}] and [${b.join(", ")}]`);
  }
  return result;
}

export const sameShape = (a: Shape, b: Shape): boolean => a.length === b.length && a.every((dim, i) => dim === b[i]);

/** Non-negative axis. @throws ShapeError when out of range. */
export function normalizeAxis(operator: string, axis: number, rank: number): number {
  const result = axis < 0 ? axis + rank : axis;
  if (!Number.isInteger(axis) || result < 0 || result >= rank) {
    throw new ShapeError(`${operator}: expected an axis in [${-rank}, ${rank}), got ${axis}`);
  }
  return result;
}

export function sameDType(operator: string, inputs: readonly Tensor[]): DType {
  const [first] = inputs;
  for (const input of inputs) {
    if (input.dtype !== first.dtype) {
      throw new ShapeError(`${operator}: expected one dtype, got ${inputs.map(String).join(" and ")}`, {
        hint: "Convert one side with cast().",
      });
    }
  }
  return first.dtype;
}

/** The dimensions as numbers. @throws ShapeError naming the symbolic ones. */
export function staticShape(operator: string, shape: Shape): number[] {
  return shape.map((dim) => {
    if (typeof dim === "string") {
      throw new ShapeError(`${operator}: expected fixed dimensions, got the symbolic "${dim}" in [${shape.join(", ")}]`, {
        hint: "Compile this program with numbers for its dimensions (training programs are compiled once per shape).",
      });
    }
    return dim;
  });
}

/** Product of dimensions: a number, or undefined when one is symbolic. */
export function elementCount(shape: Shape): number | undefined {
  let count = 1;
  for (const dim of shape) {
    if (typeof dim === "string") return undefined;
    count *= dim;
  }
  return count;
}

/** The single output of a rule that must exist. */
export function required(cotangent: Tensor | undefined): Tensor {
  if (!cotangent) throw new InvariantError("a derivative rule was called without a cotangent");
  return cotangent;
}
