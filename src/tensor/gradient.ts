// Reverse-mode differentiation: gradients are more nodes of the same graph, so derivatives of derivatives need nothing new.
// Forward mode is reverse mode twice: u -> J'u is linear, and its own transpose applied to v is J v.
import { ShapeError } from "../base/errors.ts";
import { scalar, zerosLike } from "./core.ts";
import { isFloat } from "./dtype.ts";
import { add } from "./elementwise.ts";
import { locate, type Node, sameShape, staticShape, Tensor } from "./graph.ts";
import { liveNodes } from "./onnx.ts";
import { flatten, type MapTree, unflatten } from "./tree.ts";

/**
 * The derivative of a scalar `loss` with respect to every leaf of `tree`, as a tree of the same shape.
 * Leaves that the loss does not depend on get zeros. The graph is only appended to: call it again on a gradient for second derivatives.
 * @throws ShapeError when the loss is no scalar, or a symbolic dimension or an operator without derivative lies on the path.
 */
export function gradients<T>(loss: Tensor, tree: T): MapTree<T, Tensor> {
  if (loss.rank !== 0) {
    throw new ShapeError(`gradients: expected a scalar loss, got ${loss}`, {
      hint: "Reduce it with mean() or sum(), or use vjp() with a cotangent.",
    });
  }
  if (!isFloat(loss.dtype)) throw new ShapeError(`gradients: expected a floating-point loss, got ${loss}`);
  return vjp([loss], [scalar(loss.graph, loss.dtype, 1)], tree);
}

/**
 * Vector–Jacobian product: the cotangents of the leaves of `tree`, given those of `outputs` (undefined counts as zero).
 * @throws ShapeError as {@link gradients}.
 */
export function vjp<T>(outputs: readonly Tensor[], cotangents: readonly (Tensor | undefined)[], tree: T): MapTree<T, Tensor> {
  const leaves = flatten<Tensor>(tree as never);
  const flowing = accumulate(outputs, cotangents, new Set(leaves.map(([, leaf]) => leaf)));
  return unflatten(tree, new Map(leaves.map(([path, leaf]) => [path, flowing.get(leaf) ?? zerosLike(leaf)])));
}

/**
 * Jacobian–vector product: the directional derivatives of `outputs` when the leaves of `tree` move along `tangents` (a tree of the same shape).
 * Built by transposing the vector–Jacobian product, which leaves no trace of the dummy cotangents in the compiled program.
 */
export function jvp<T>(outputs: readonly Tensor[], tree: T, tangents: MapTree<T, Tensor>): Tensor[] {
  const leaves = flatten<Tensor>(tree as never).map(([, leaf]) => leaf);
  const directions = flatten<Tensor>(tangents as never).map(([, leaf]) => leaf);
  // Opaque tensors without a node: a constant would be simplified away (dummy + a to a), and its derivative with it.
  const dummies = outputs.map((output) => new Tensor(output.graph, output, undefined, 0, "cotangent of jvp"));
  const products = vjp(outputs, dummies, leaves);
  return vjp(products, directions, dummies);
}

function accumulate(outputs: readonly Tensor[], seeds: readonly (Tensor | undefined)[], targets: ReadonlySet<Tensor>): Map<Tensor, Tensor> {
  const nodes = liveNodes(outputs);
  const reaching = tensorsReaching(nodes, targets);
  const flowing = new Map<Tensor, Tensor>();
  const contribute = (tensor: Tensor, cotangent: Tensor): void => {
    if (!sameShape(tensor.shape, cotangent.shape))
      throw new ShapeError(`vjp: expected a cotangent of shape [${tensor.shape.join(", ")}], got ${cotangent}`);
    const sofar = flowing.get(tensor);
    flowing.set(tensor, sofar ? add(sofar, cotangent) : cotangent);
  };
  for (const [index, output] of outputs.entries()) {
    const seed = seeds[index];
    if (seed && reaching.has(output)) contribute(output, seed);
  }
  for (const node of nodes.reverse()) {
    const cotangents = node.outputs.map((output) => flowing.get(output));
    if (cotangents.every((cotangent) => cotangent === undefined)) continue;
    const needs = node.inputs.map((input) => reaching.has(input));
    if (!needs.some(Boolean)) continue;
    const { vjp: rule, name } = node.operator;
    if (!rule) {
      throw new ShapeError(`${name} has no derivative, but the loss depends on it${node.scope ? ` in ${node.scope}` : ""}`, {
        hint: "Wrap its input or output in stopGradient() if no gradient shall flow.",
      });
    }
    const graph = node.inputs[0].graph;
    // Scopes of the forward pass, marked, so that profiles tell the two passes apart.
    graph.enter(node.scope ? `${node.scope}'` : "'");
    try {
      for (const input of node.inputs) staticShape(`gradients through ${name}`, input.shape);
      const results = rule({ inputs: node.inputs, outputs: node.outputs, attributes: node.attributes, cotangents, needs });
      for (const [index, result] of results.entries()) if (result && needs[index]) contribute(node.inputs[index], result);
    } catch (error) {
      throw locate(error, graph);
    } finally {
      graph.leave();
    }
  }
  return flowing;
}

/** Every tensor of `nodes` through which a target can be reached, the targets included. */
function tensorsReaching(nodes: readonly Node[], targets: ReadonlySet<Tensor>): Set<Tensor> {
  const reaching = new Set<Tensor>(targets);
  for (const node of nodes) {
    if (node.inputs.some((input) => reaching.has(input)) && node.operator.name !== "stopGradient") {
      for (const output of node.outputs) reaching.add(output);
    }
  }
  return reaching;
}
