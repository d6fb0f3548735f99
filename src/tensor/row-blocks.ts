// A chain of operators over blocks of rows that stay in the cache, instead of each over all rows in memory: one ONNX Scan, whose body
// sees a block of every input without a copy and writes its block of every output in place.
import { ShapeError } from "../base/errors.ts";
import { vjp } from "./gradient.ts";
import { apply, type Body, elementCount, Graph, type Operator, Tensor } from "./graph.ts";
import type { Emitter } from "./onnx.ts";

/**
 * Elements of the widest tensor of a block, for each thread (and for two at least): ONNX Runtime gives an elementwise operator on fewer
 * than that to one thread. For one thread 24,576 to 196,608 were equally fast (derivative of GELU, half of the time of whole passes).
 */
const elementsPerThread = 65_536;

/** Cotangents of all inputs of blocks, from those of the first output, where that spares work. */
export type BlocksRule = (
  inputs: { rows: readonly Tensor[]; shared: readonly Tensor[] },
  outputs: readonly Tensor[],
  cotangent: Tensor,
) => (Tensor | undefined)[];

interface BlocksAttributes {
  /** How many of the inputs are cut; the others are seen whole by every block. */
  readonly numCut: number;
  readonly body: Body;
  readonly rule: Body | undefined;
  readonly [key: string]: number | Body | undefined;
}

// The boundary between a body and its inputs when it is traced in place to be differentiated: an identity whose output is the leaf.
const leafOperator: Operator = {
  name: "leaf",
  infer: ([x]) => [x],
  vjp: ({ cotangents }) => [...cotangents],
  emit: (emitter, node) => emitter.alias(node.outputs[0], emitter.name(node.inputs[0])),
};

const blocksOperator: Operator<BlocksAttributes> = {
  name: "rowBlocks",
  infer(inputs, attributes) {
    const [{ shape }] = inputs;
    for (const input of inputs.slice(0, attributes.numCut)) {
      if (input.rank < 1 || input.shape[0] !== shape[0])
        throw new ShapeError(`inRowBlocks: expected as many rows in each of the inputs, got ${inputs.map(String).join(" and ")}`);
    }
    const { outputs } = trace(inputs, attributes, shape[0] as number);
    return outputs.map(({ dtype, shape }) => ({ dtype, shape }));
  },
  vjp({ inputs, outputs, attributes: { body, rule, numCut }, cotangents }) {
    const [cotangent, ...others] = cotangents;
    if (rule && cotangent && others.every((other) => other === undefined)) return rule(...inputs, ...outputs, cotangent);
    const leaves = inputs.map((input) => apply(leafOperator, [input], {})[0]);
    return vjp(body(...leaves.slice(0, numCut), ...leaves.slice(numCut)), cotangents, leaves);
  },
  emit(emitter, node) {
    const { inputs, attributes } = node;
    const { numCut } = attributes;
    const rows = inputs[0].shape[0] as number;
    const block = emitter.insideBody ? rows : blockLength(emitter, rows, [...inputs.slice(0, numCut), ...node.outputs]);
    const { graph, shared, outputs } = trace(inputs, attributes, block, node.scope);
    for (const [i, tensor] of shared.entries()) emitter.alias(tensor, emitter.name(inputs[numCut + i]));
    if (block === rows) {
      for (const [i, tensor] of graph.inputs.entries()) emitter.alias(tensor, emitter.name(inputs[i]));
      emitter.inline(graph, outputs);
      for (const [i, output] of outputs.entries()) emitter.alias(node.outputs[i], emitter.name(output));
      return;
    }
    const wanted = [...outputs.keys()].filter((i) => emitter.used.has(node.outputs[i]));
    const body = emitter.body(
      graph,
      wanted.map((i) => outputs[i]),
    );
    const blocks = inputs
      .slice(0, numCut)
      .map((input) =>
        emitter.value("Reshape", [emitter.name(input), emitter.ints([rows / block, block, ...(input.shape.slice(1) as number[])])]),
      );
    const results = wanted.map(() => emitter.temporary());
    emitter.node("Scan", blocks, results, { body, num_scan_inputs: numCut });
    for (const [k, i] of wanted.entries())
      emitter.node("Reshape", [results[k], emitter.ints(node.outputs[i].shape as number[])], [emitter.output(node, i)]);
  },
};

/** The body over blocks of `length` rows, in a graph of its own. */
function trace(inputs: readonly Tensor[], { numCut, body }: BlocksAttributes, length: number, scope = "") {
  const graph = new Graph();
  if (scope) graph.enter(scope);
  const cut = inputs.slice(0, numCut).map(({ dtype, shape }, i) => graph.input(`rows ${i}`, dtype, [length, ...shape.slice(1)]));
  const shared = inputs.slice(numCut).map((type, i) => new Tensor(graph, type, undefined, 0, `shared ${i}`));
  const outputs = body(...cut, ...shared);
  for (const output of outputs) {
    if (output.shape[0] !== length) throw new ShapeError(`inRowBlocks: expected ${length} rows in each of the outputs, got ${output}`);
  }
  return { graph, shared, outputs };
}

/** The largest divisor of the rows that stays within the limit; all rows where blocks would be too few or too small. */
function blockLength({ threads }: Emitter, rows: number, tensors: readonly Tensor[]): number {
  const widest = Math.max(...tensors.map(({ shape }) => elementCount(shape.slice(1)) as number));
  const limit = Math.max(1, Math.floor((elementsPerThread * Math.max(2, threads)) / widest));
  let block = Math.min(limit, rows);
  while (rows % block !== 0) block--;
  return rows / block < 2 || block < limit / 4 ? rows : block;
}

/**
 * `body` over blocks of the first axis of `rows`, where row i of each output depends on row i of each input alone; `shared` tensors are
 * seen whole. The same function and derivatives as `body(...rows, ...shared)`, with less traffic between cache and memory.
 * `body` must use nothing but its arguments. `rule`: see {@link BlocksRule}. With symbolic sizes, or little to do, there is one block.
 * @throws ShapeError
 */
export function inRowBlocks(rows: readonly Tensor[], shared: readonly Tensor[], body: Body, rule?: BlocksRule): Tensor[] {
  const all = [...rows, ...shared];
  if (all.some(({ shape }) => elementCount(shape) === undefined)) return body(...all);
  const numCut = rows.length;
  const flatRule: Body | undefined =
    rule &&
    ((...values) => {
      const inputs = values.slice(0, all.length);
      const [outputs, cotangent] = [values.slice(all.length, -1), values[values.length - 1]];
      return rule({ rows: inputs.slice(0, numCut), shared: inputs.slice(numCut) }, outputs, cotangent) as Tensor[];
    });
  return apply(blocksOperator, all, { numCut, body, rule: flatRule });
}
