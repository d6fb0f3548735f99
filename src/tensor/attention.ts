// Fused operators of attention: rotary embedding (differentiable), cached grouped-query attention and block-quantised products (inference only).
import { ShapeError } from "../base/errors.ts";
import { sum, unbroadcast } from "./core.ts";
import { add, mul, neg, sub } from "./elementwise.ts";
import { apply, apply1, broadcastShapes, type Dim, type Operator, required, sameDType, sameShape, type Tensor } from "./graph.ts";
import { emitProduct, matmul } from "./matmul.ts";
import { contrib, type Emitter, float, own } from "./onnx.ts";
import { split } from "./shape.ts";

// ---- rotary position embedding

// The rotation is orthogonal: its transpose turns the other way, which is the same operator with −sin.
const rotaryOperator: Operator = {
  name: "rotary",
  infer([x, cosTable, sinTable]) {
    const width = x.shape.at(-1);
    sameDType("rotary", [x, cosTable, sinTable]);
    const half = typeof width === "number" ? [...x.shape.slice(0, -1), width / 2] : [];
    const fits = (table: Tensor): boolean =>
      table.shape.at(-1) === half[3] && sameShape(broadcastShapes("rotary", half, table.shape), half);
    if (x.rank !== 4 || half.length === 0 || !fits(cosTable) || !fits(sinTable)) {
      throw new ShapeError(
        `rotary: expected x [B, T, H, D] and cosines and sines that broadcast to [B, T, H, D/2], got ${x}, ${cosTable} and ${sinTable}`,
      );
    }
    return [{ dtype: x.dtype, shape: x.shape }];
  },
  vjp({ inputs: [x, cosTable, sinTable], cotangents: [cotangent], needs }) {
    const g = required(cotangent);
    const dx = needs[0] ? rotary(g, cosTable, neg(sinTable)) : undefined;
    // Tables are constants in most models; learned rotations differentiate them.
    if (!needs[1] && !needs[2]) return [dx, undefined, undefined];
    const halves = (tensor: Tensor): Tensor[] => split(tensor, new Array<number>(2).fill((x.shape[3] as number) / 2));
    const [[low, high], [gLow, gHigh]] = [halves(x), halves(g)];
    return [dx, unbroadcast(add(mul(low, gLow), mul(high, gHigh)), cosTable), unbroadcast(sub(mul(low, gHigh), mul(high, gLow)), sinTable)];
  },
  emit(emitter, node) {
    const [x, cosTable, sinTable] = node.inputs;
    emitter.alias(node.outputs[0], rotate(emitter, x, emitter.name(x), emitter.name(cosTable), emitter.name(sinTable)));
  },
};

function rotate(emitter: Emitter, x: Tensor, name: string, cosine: string, sine: string): string {
  const width = x.shape.at(-1) as number;
  const mul = (a: string, b: string): string => emitter.value("Mul", [a, b]);
  const parts = [emitter.temporary(), emitter.temporary()];
  emitter.node("Split", [name, emitter.ints([width / 2, width / 2])], parts, { axis: -1 });
  const [low, high] = parts;
  const first = emitter.value("Sub", [mul(low, cosine), mul(high, sine)]);
  const second = emitter.value("Add", [mul(high, cosine), mul(low, sine)]);
  return emitter.value("Concat", [first, second], { axis: -1 });
}

/**
 * Rotary position embedding of the two halves of the last axis (Su et al. 2021, in GPT-NeoX order): x [B, T, H, D], cosines and sines
 * that broadcast to [B, T, H, D/2]. Partial rotary: split x before.
 */
export const rotary = (x: Tensor, cosines: Tensor, sines: Tensor): Tensor => apply1(rotaryOperator, [x, cosines, sines], {});

// ---- scaled dot-product attention of whole sequences

// Outputs: mixed values [.., T, D], probabilities [.., T, S]. One operator, because its derivative needs one dense pass less than that of
// its parts: the row sums of dP ∘ P are those of dO ∘ O (Dao et al. 2022, Eq. 4), which are D wide instead of S.
const scaledDotProductOperator: Operator<{ scale: number }> = {
  name: "scaledDotProductAttention",
  infer([query, key, value, bias]) {
    const [q, k, v] = [query.shape, key.shape, value.shape];
    if (q.length < 2 || k.at(-1) !== q.at(-1) || k.at(-2) !== v.at(-2)) {
      throw new ShapeError(
        `scaledDotProductAttention: expected query [.., T, D], key [.., S, D] and value [.., S, E], got ${query}, ${key} and ${value}`,
      );
    }
    const batch = broadcastShapes("scaledDotProductAttention", q.slice(0, -2), k.slice(0, -2));
    const scores = [...batch, q.at(-2) as Dim, k.at(-2) as Dim];
    if (bias && !sameShape(broadcastShapes("scaledDotProductAttention", scores, bias.shape), scores)) {
      throw new ShapeError(`scaledDotProductAttention: expected a bias that broadcasts to [${scores.join(", ")}], got ${bias}`);
    }
    return [
      { dtype: query.dtype, shape: [...batch, q.at(-2) as Dim, v.at(-1) as Dim] },
      { dtype: query.dtype, shape: scores },
    ];
  },
  vjp({ inputs: [query, key, value, bias], outputs: [output, weights], attributes: { scale }, cotangents: [g, gWeights], needs }) {
    // Cotangent of the probabilities; the operator's second output has one of its own only when a derivative is differentiated again.
    const through = g && matmul(g, value, { transposeB: true });
    const dWeights = through && gWeights ? add(through, gWeights) : (through ?? required(gWeights));
    const rows = g && !gWeights ? mul(g, output) : mul(dWeights, weights);
    const dScores = mul(weights, sub(dWeights, sum(rows, { axes: -1, keepDims: true })));
    return [
      needs[0] ? unbroadcast(matmul(dScores, key, { alpha: scale }), query) : undefined,
      needs[1] ? unbroadcast(matmul(dScores, query, { transposeA: true, alpha: scale }), key) : undefined,
      needs[2] && g ? unbroadcast(matmul(weights, g, { transposeA: true }), value) : undefined,
      bias && needs[3] ? unbroadcast(dScores, bias) : undefined,
    ];
  },
  emit(emitter, node) {
    const [query, key, value, bias] = node.inputs;
    let scores = emitter.temporary();
    emitProduct(emitter, [query, key], { transposeA: false, transposeB: true, alpha: node.attributes.scale }, scores);
    if (bias) scores = emitter.value("Add", [scores, emitter.name(bias)]);
    const weights = emitter.output(node, 1);
    emitter.node("Softmax", [scores], [weights], { axis: -1 });
    emitProduct(emitter, [node.outputs[1], value], { transposeA: false, transposeB: false, alpha: 1 }, emitter.output(node, 0));
  },
};

/**
 * softmax(q kᵀ · scale + bias) v (Vaswani et al. 2017, Eq. 1): query [.., T, D], key [.., S, D], value [.., S, E], bias broadcast to
 * [.., T, S] → [.., T, E]. Leading axes broadcast. `scale` defaults to 1/√D.
 */
export function scaledDotProductAttention(
  query: Tensor,
  key: Tensor,
  value: Tensor,
  options: { bias?: Tensor; scale?: number } = {},
): Tensor {
  const { bias, scale = 1 / Math.sqrt(query.shape.at(-1) as number) } = options;
  return apply(scaledDotProductOperator, bias ? [query, key, value, bias] : [query, key, value], { scale })[0];
}

// ---- grouped-query attention over a cache, in place

interface GroupQueryAttributes {
  readonly heads: number;
  readonly kvHeads: number;
  readonly scale: number;
  readonly softCap: number;
  /** −1: no window. */
  readonly window: number;
  readonly rotary: boolean;
  readonly packed: boolean;
  readonly [key: string]: number | boolean;
}

/** Of our own kernel. */
const widestHead = 256;

const groupQueryOperator: Operator<GroupQueryAttributes> = {
  name: "groupQueryAttention",
  infer(inputs, { heads, kvHeads, packed }) {
    const [query, ...rest] = inputs;
    const keyAndValue = packed ? [] : rest.splice(0, 2);
    const [pastKey, pastValue] = rest;
    const width = pastKey.shape.at(-1) as number;
    const isRows = (x: Tensor, count: number): boolean => x.rank === 3 && x.shape[2] === count * width;
    const isCache = (x: Tensor): boolean => x.rank === 4 && x.shape[1] === kvHeads && x.shape[3] === width;
    const rowsFit = isRows(query, packed ? heads + 2 * kvHeads : heads) && keyAndValue.every((x) => isRows(x, kvHeads));
    if (!rowsFit || !isCache(pastKey) || !isCache(pastValue) || heads % kvHeads !== 0) {
      throw new ShapeError(
        `groupQueryAttention: expected query [B, S, H·D], key and value [B, S, KV·D] or the three in one, caches [B, KV, capacity, D] and H a ` +
          `multiple of KV, got ${[query, ...keyAndValue, pastKey, pastValue].join(", ")} for H = ${heads} and KV = ${kvHeads}`,
      );
    }
    return [
      { dtype: query.dtype, shape: [...query.shape.slice(0, -1), heads * (pastKey.shape.at(-1) as number)] },
      { dtype: pastKey.dtype, shape: pastKey.shape },
      { dtype: pastValue.dtype, shape: pastValue.shape },
    ];
  },
  emit(emitter, node) {
    const { heads, kvHeads, scale, softCap, window, rotary: ownRotary, packed } = node.attributes;
    const [query, ...rest] = emitter.names(node.inputs);
    const [key, value] = packed ? ["", ""] : rest.splice(0, 2);
    const [pastKey, pastValue, lengths, total] = rest.splice(0, 4);
    const tables = ownRotary ? rest.splice(0, 2) : ["", ""];
    // What is left: positions and bias of a tree.
    const inputs = [query, key, value, pastKey, pastValue, lengths, total, ...tables, ...rest];
    const outputs = node.outputs.map((_, i) => emitter.output(node, i));
    const shared = { num_heads: heads, kv_num_heads: kvHeads, scale: float(scale), local_window_size: window };
    const isOwn = emitter.operators.has("GroupedAttention") && softCap === 0 && Number(node.outputs[1].shape[3]) <= widestHead;
    if (isOwn) emitter.node("GroupedAttention", inputs, outputs, { ...shared, tasks: emitter.tasks }, own);
    else {
      const attributes = { ...shared, softcap: float(softCap), do_rotary: ownRotary ? 1 : 0 };
      emitter.node("GroupQueryAttention", inputs, outputs, attributes, contrib);
    }
  },
};

export interface GroupQueryOptions {
  heads: number;
  kvHeads: number;
  /** Factor of the scores. Default 1/√D. */
  scale?: number;
  /** Scores limited to ±cap; 0 (default) means no limit. */
  softCap?: number;
  /** A query sees this many keys, itself included. Default: all. */
  window?: number;
  /** Cosines and sines [capacity, D/2] (f32) for rotation inside the kernel; D must be a multiple of 16. */
  tables?: { cosines: Tensor; sines: Tensor };
  /** For trees: positions [B, S] (i64) and an additive bias [B or 1, 1 or H, S, total]. */
  tree?: { positions: Tensor; bias: Tensor };
}

/**
 * Causal attention of new tokens over a cache that already holds the past: query [B, S, H·D], key and value [B, S, KV·D], or
 * the three joined as query [B, S, (H + 2 KV)·D] and no key and value; past key and value [B, KV, capacity, D], `lengths` [B] (i32) = past + S − 1, `total` (i32 scalar) = the largest past + S.
 * Bind each past and present to the same buffer: the kernel then writes the new rows in place. D must be a multiple of 8;
 * B > 1 needs S = 1, or no past at all (ONNX Runtime's kernel). No derivative.
 */
export function groupQueryAttention(
  inputs: { query: Tensor; key?: Tensor; value?: Tensor; pastKey: Tensor; pastValue: Tensor; lengths: Tensor; total: Tensor },
  options: GroupQueryOptions,
): { output: Tensor; presentKey: Tensor; presentValue: Tensor } {
  const { query, key, value, pastKey, pastValue, lengths, total } = inputs;
  const width = pastKey.shape.at(-1);
  if (typeof width !== "number" || width % 8 !== 0)
    throw new ShapeError(`groupQueryAttention: expected a head width that is a multiple of 8, got ${pastKey}`);
  if ((key === undefined) !== (value === undefined))
    throw new ShapeError("groupQueryAttention: expected both key and value or neither, got one");
  const tensors = [query, ...(key && value ? [key, value] : []), pastKey, pastValue, lengths, total];
  if (options.tables) tensors.push(options.tables.cosines, options.tables.sines);
  if (options.tree) tensors.push(options.tree.positions, options.tree.bias);
  const [output, presentKey, presentValue] = apply(groupQueryOperator, tensors, {
    heads: options.heads,
    kvHeads: options.kvHeads,
    scale: options.scale ?? 1 / Math.sqrt(width),
    softCap: options.softCap ?? 0,
    window: options.window ?? -1,
    rotary: options.tables !== undefined,
    packed: key === undefined,
  });
  return { output, presentKey, presentValue };
}

// ---- writing new rows into a cache

const writeRowsOperator: Operator = {
  name: "writeRows",
  infer([cache, positions, rows]) {
    if (cache.rank !== 4 || rows.rank !== 4 || positions.rank !== 2) {
      throw new ShapeError(
        `writeRows: expected a cache [B, G, capacity, D], positions [B, S] and rows [B, G, S, D], got ${cache}, ${positions} and ${rows}`,
      );
    }
    return [{ dtype: cache.dtype, shape: cache.shape }];
  },
  emit(emitter, node) {
    const [cache, positions, rows] = node.inputs;
    const [, groups, , width] = cache.shape as number[];
    const places = emitter.value("Unsqueeze", [emitter.name(positions), emitter.ints([1, 3])]);
    const indices = emitter.value("Expand", [places, emitter.ints([1, groups, 1, width])]);
    emitter.node("ScatterElements", [emitter.name(cache), indices, emitter.name(rows)], [emitter.output(node)], { axis: 2 });
  },
};

/**
 * The cache [B, G, capacity, D] with rows [B, G, S, D] at positions [B, S] (i32, distinct within a row of the batch).
 * Bind input and output to one buffer: only the new rows are written. No derivative.
 */
export const writeRows = (cache: Tensor, positions: Tensor, rows: Tensor): Tensor =>
  apply1(writeRowsOperator, [cache, positions, rows], {});

// ---- block-quantised linear layer

interface QuantisedAttributes {
  readonly bits: number;
  readonly blockSize: number;
  readonly columns: number;
  /** Which of the optional operands are among the inputs. */
  readonly hasZeroPoints: boolean;
  readonly hasOffsets: boolean;
  readonly [key: string]: number | boolean;
}

const quantisedLinearOperator: Operator<QuantisedAttributes> = {
  name: "quantisedLinear",
  infer([x, ,], { columns }) {
    return [{ dtype: x.dtype, shape: [...x.shape.slice(0, -1), columns] }];
  },
  emit(emitter, node) {
    const { bits, blockSize, columns, hasZeroPoints, hasOffsets } = node.attributes;
    const { rank, shape } = node.inputs[0];
    const inner = shape.at(-1) as number;
    const [x, packed, scales, ...others] = emitter.names(node.inputs);
    const zeroPoints = hasZeroPoints ? [others[0]] : [];
    const offsets = hasOffsets ? others.at(-1) : undefined;
    const output = emitter.output(node);
    const shared = { K: inner, N: columns, bits, block_size: blockSize };
    if (emitter.operators.has("MatMulBlocks") && blockSize % 32 === 0) {
      const keeps = emitter.mayPack(node.inputs[1]);
      if (keeps) emitter.packed.add(packed);
      const optional = offsets === undefined ? zeroPoints : [zeroPoints[0] ?? "", offsets];
      const attributes = { ...shared, tasks: emitter.tasks, keeps: Number(keeps) };
      emitter.node("MatMulBlocks", [x, packed, scales, ...optional], [output], attributes, own);
      return;
    }
    const operands = [x, packed, scales, ...zeroPoints];
    const attributes = { ...shared, accuracy_level: 4 };
    if (offsets === undefined) {
      emitter.node("MatMulNBits", operands, [output], attributes, contrib);
      return;
    }
    // Offsets are multiplied with the sums of the blocks of x; 0 leaves a dimension as it is.
    const blocks = emitter.value("Reshape", [x, emitter.ints([...Array(rank - 1).fill(0), inner / blockSize, blockSize])]);
    const sums = emitter.value("ReduceSum", [blocks, emitter.ints([rank])], { keepdims: 0 });
    const moved = emitter.value("FusedMatMul", [sums, offsets], { transB: 1 }, contrib);
    emitter.node("Add", [emitter.value("MatMulNBits", operands, attributes, contrib), moved], [output]);
  },
};

/**
 * x Wᵀ with W [out, in] in blocks of `blockSize` along `in`, W = scale · (level − zero) + offset: the layout of MatMulNBits (com.microsoft).
 * - `packed` [out, blocks, blockSize · bits / 8] (u8), blocks = ⌈in / blockSize⌉: the levels of a block in order; with 4 bits two to a byte,
 *   the earlier one in the low nibble. The last block is padded; its padding is not read.
 * - `scales` [out, blocks] (f32), of either sign.
 * - `zeroPoints` [out, ⌈blocks · bits / 8⌉] (u8): one a block, packed like the levels, each row starting at a byte. Default 2^(bits − 1).
 * - `offsets` [out, blocks] (f32), for whole blocks. Default 0.
 *
 * `blockSize` is a power of two of at least 16. The kernel rounds each block of x to int8, with scale max |x| / 127. MatMulBlocks, our own
 * kernel, does so in blocks of 32 where they are larger; on processors without VNNI it rounds sums of two products of levels of 8 bits to
 * multiples of 8, a tenth of the error that rounding x makes where the levels of a block fill the byte. No derivative.
 * @throws ShapeError
 */
export function quantisedLinear(
  x: Tensor,
  weight: { packed: Tensor; scales: Tensor; zeroPoints?: Tensor; offsets?: Tensor },
  bits: 4 | 8,
  blockSize: number,
): Tensor {
  const { packed, scales, zeroPoints, offsets } = weight;
  const columns = packed.shape[0] as number;
  const inner = x.shape.at(-1);
  const blocks = Math.ceil(Number(inner) / blockSize);
  if (typeof inner !== "number" || !sameShape(packed.shape, [columns, blocks, (blockSize * bits) / 8])) {
    throw new ShapeError(
      `quantisedLinear: expected packed blocks [out, ${inner}/${blockSize}, ${(blockSize * bits) / 8}], got ${packed} for ${x}`,
    );
  }
  const zeroBytes = Math.ceil((blocks * bits) / 8);
  if (!sameShape(scales.shape, [columns, blocks]) || (zeroPoints && !sameShape(zeroPoints.shape, [columns, zeroBytes]))) {
    throw new ShapeError(
      `quantisedLinear: expected scales [${columns}, ${blocks}] and zero points [${columns}, ${zeroBytes}], got ${scales} and ${zeroPoints}`,
    );
  }
  if (offsets && (inner % blockSize !== 0 || !sameShape(offsets.shape, [columns, blocks]))) {
    throw new ShapeError(
      `quantisedLinear: expected offsets [${columns}, ${blocks}] of whole blocks of ${blockSize}, got ${offsets} for rows of ${inner}`,
    );
  }
  const inputs = [x, packed, scales, ...(zeroPoints ? [zeroPoints] : []), ...(offsets ? [offsets] : [])];
  const [hasZeroPoints, hasOffsets] = [zeroPoints !== undefined, offsets !== undefined];
  return apply1(quantisedLinearOperator, inputs, { bits, blockSize, columns, hasZeroPoints, hasOffsets });
}
