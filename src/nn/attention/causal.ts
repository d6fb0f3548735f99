// Causal softmax attention of whole sequences, parallel face (training, evaluation), from joined rows to mixed rows: one sequence after
// another, so that scores stay in the cache, and in blocks of queries that skip the keys which none of them sees (Dao et al. 2022).
// Letters: B batch, T time, S keys, A all heads, H query heads, G key/value heads, R = H/G, D head width, F = A·D.
import { ShapeError } from "../../base/errors.ts";
import { reshape, sum } from "../../tensor/core.ts";
import type { DType } from "../../tensor/dtype.ts";
import { add, mul, sub } from "../../tensor/elementwise.ts";
import { vjp } from "../../tensor/gradient.ts";
import type { Graph, Tensor } from "../../tensor/graph.ts";
import { matmul } from "../../tensor/matmul.ts";
import { softmax } from "../../tensor/norm.ts";
import { inRowBlocks } from "../../tensor/row-blocks.ts";
import { concat, slice, split, transpose } from "../../tensor/shape.ts";
import { causalBlock } from "./mask.ts";

/** Queries [start, end) and the keys [first, end), from the beginning of a block, that at least one of them sees. */
interface Span {
  readonly start: number;
  readonly end: number;
  readonly first: number;
}

/** How a sequence is cut, with the bias of each part: make it once for all layers. */
export interface CausalSpans {
  readonly spans: readonly Span[];
  /** [end − start, end − first] each. */
  readonly biases: readonly Tensor[];
}

/** More blocks skip more keys (a fraction of ½ − ½/blocks), but products with few rows are slower. */
const [mostBlocks, fewestQueries] = [4, 64];

/** Blocks of queries for sequences of `length`; `window`: see {@link causalBias}. */
export function causalSpans(graph: Graph, length: number, dtype: DType, window?: number): CausalSpans {
  const blocks = Math.max(1, Math.min(mostBlocks, Math.floor(length / fewestQueries)));
  const size = Math.ceil(length / blocks);
  const spans: Span[] = [];
  for (let start = 0; start < length; start += size) {
    const first = Math.max(0, start - (window ?? Number.POSITIVE_INFINITY) + 1);
    spans.push({ start, end: Math.min(start + size, length), first: first - (first % size) });
  }
  const biases = spans.map(({ start, end, first }) => causalBlock(graph, dtype, [start, end], [first, end], window));
  return { spans, biases };
}

export interface CausalAttentionOptions {
  heads: number;
  kvHeads: number;
  /** Factor of the scores. Default 1/√D. */
  scale?: number;
  /** Turns queries and keys by their positions: x [B, H + G, T, D] and `tables` → the same shape. */
  rotation?: { tables: readonly Tensor[]; apply: (x_BATD: Tensor, ...tables: Tensor[]) => Tensor };
}

/** Joined queries, keys and values [B, T, (H + 2G)·D] → mixed values [B, T, H·D]. Query head h uses key/value head ⌊h / (H/G)⌋. */
export function causalAttention(qkv_BTF: Tensor, { spans, biases }: CausalSpans, options: CausalAttentionOptions): Tensor {
  const { heads, kvHeads, rotation } = options;
  const all = heads + 2 * kvHeads;
  const [, time, features] = qkv_BTF.shape as number[];
  const width = features / all;
  if (qkv_BTF.rank !== 3 || !Number.isInteger(width) || heads % kvHeads !== 0 || spans.at(-1)?.end !== time) {
    throw new ShapeError(
      `causalAttention: expected rows [B, T, (H + 2G)·D] with G dividing H, and spans of T, got ${qkv_BTF} with H = ${heads}, ` +
        `G = ${kvHeads} and spans of ${spans.at(-1)?.end}`,
    );
  }
  const { scale = 1 / Math.sqrt(width) } = options;
  const grouped = heads !== kvHeads;
  const tables = rotation?.tables ?? [];

  // Bodies take and give [B, T, heads, D]: a reshape at their end would be a copy.
  const toHeads = (x: Tensor): Tensor => group(transpose(x, [0, 2, 1, 3]), heads / kvHeads);
  const fromHeads = (x: Tensor): Tensor => transpose(reshape(x, [-1, heads, time, width]), [0, 2, 1, 3]);
  const group = (x_BHTD: Tensor, perGroup: number): Tensor => {
    const [batch, , ...rest] = x_BHTD.shape;
    return grouped ? reshape(x_BHTD, [batch, kvHeads, perGroup, ...rest]) : x_BHTD;
  };
  const prepare = (qkv: Tensor, turns: readonly Tensor[]): Tensor[] => {
    let heads_BATD = transpose(qkv, [0, 2, 1, 3]);
    if (rotation) {
      const [turned, value] = split(heads_BATD, [heads + kvHeads, kvHeads], 1);
      heads_BATD = concat([rotation.apply(turned, ...turns), value], 1);
    }
    const [query, key, value] = split(heads_BATD, [heads, kvHeads, kvHeads], 1);
    return [group(query, heads / kvHeads), group(key, 1), group(value, 1)];
  };
  const seen = (x: Tensor, { first, end }: Span): Tensor => slice(x, -2, first, end);
  const parts = (x: Tensor): Tensor[] =>
    split(
      x,
      spans.map(({ start, end }) => end - start),
      -2,
    );

  const forward = (qkv: Tensor, ...shared: Tensor[]): Tensor[] => {
    const [query, key, value] = prepare(qkv, shared.slice(spans.length));
    const weights: Tensor[] = [];
    const mixed = parts(query).map((queries, i) => {
      const scores = matmul(queries, seen(key, spans[i]), { transposeB: true, alpha: scale });
      weights[i] = softmax(add(scores, shared[i]));
      return matmul(weights[i], seen(value, spans[i]));
    });
    return [fromHeads(concat(mixed, -2)), ...weights];
  };

  const backward = (qkv: Tensor, output: Tensor, cotangent: Tensor, ...others: Tensor[]): Tensor[] => {
    const [weights, turns] = [others.slice(0, spans.length), others.slice(spans.length)];
    const inputs = prepare(qkv, turns);
    const [query, key, value] = inputs;
    const [queries, g] = [parts(query), parts(toHeads(cotangent))];
    // The row sums of dP ∘ P are those of dO ∘ O (Dao et al. 2022, Eq. 4).
    const rowSums = parts(toHeads(sum(mul(cotangent, output), { axes: -1, keepDims: true })));
    // Keys and values of one group are read by all of its queries.
    const own = (x: Tensor): Tensor => (grouped ? sum(x, { axes: 2, keepDims: true }) : x);
    const [dKey, dValue]: Tensor[][] = [[], []];
    const dQuery = spans.map((span, i) => {
      const dWeights = matmul(g[i], seen(value, span), { transposeB: true });
      const dScores = mul(weights[i], sub(dWeights, rowSums[i]));
      dKey[i] = own(matmul(dScores, queries[i], { transposeA: true, alpha: scale }));
      dValue[i] = own(matmul(weights[i], g[i], { transposeA: true }));
      return matmul(dScores, seen(key, span), { alpha: scale });
    });
    return vjp(inputs, [concat(dQuery, -2), scatter(spans, dKey), scatter(spans, dValue)], [qkv]);
  };

  const qkv_BTAD = reshape(qkv_BTF, [-1, time, all, width]);
  const [mixed_BTHD] = inRowBlocks([qkv_BTAD], [...biases, ...tables], forward, ({ rows, shared }, [output, ...weights], cotangent) => [
    ...inRowBlocks([...rows, output, cotangent, ...weights], shared.slice(spans.length), backward),
    ...shared.map(() => undefined),
  ]);
  return reshape(mixed_BTHD, [-1, time, heads * width]);
}

/** Tensors [.., end − first, D], one a span, added at their places in [.., T, D]. */
function scatter(spans: readonly Span[], parts: readonly Tensor[]): Tensor {
  const sums: Tensor[] = [];
  for (const [i, { first }] of spans.entries()) {
    const before = spans.findIndex(({ start }) => start === first);
    const sizes = spans.slice(before, i + 1).map(({ start, end }) => end - start);
    for (const [j, piece] of split(parts[i], sizes, -2).entries())
      sums[before + j] = before + j in sums ? add(sums[before + j], piece) : piece;
  }
  return concat(sums, -2);
}
