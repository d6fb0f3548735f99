// Matrix products: batched with transposed forms (no Transpose nodes), linear layers, two-operand contractions.
import { ShapeError } from "../base/errors.ts";
import { reshape, sum, unbroadcast } from "./core.ts";
import type { DType } from "./dtype.ts";
import { apply1, broadcastShapes, type Dim, elementCount, type Operator, required, type Shape, sameDType, type Tensor } from "./graph.ts";
import { contrib, type Emitter, float } from "./onnx.ts";
import { transpose } from "./shape.ts";

interface MatmulAttributes {
  readonly transposeA: boolean;
  readonly transposeB: boolean;
  readonly alpha: number;
  readonly [key: string]: boolean | number;
}

const matmulOperator: Operator<MatmulAttributes> = {
  name: "matmul",
  infer([a, b], attributes) {
    const { transposeA, transposeB } = attributes;
    const dtype = sameDType("matmul", [a, b]);
    const label = `${a}${transposeA ? "ᵀ" : ""} × ${b}${transposeB ? "ᵀ" : ""}`;
    if (a.rank < 2 || b.rank < 2)
      throw new ShapeError(`matmul: expected matrices, got ${label}`, { hint: "Give a vector a second dimension with reshape()." });
    if (a.shape.at(transposeA ? -2 : -1) !== b.shape.at(transposeB ? -1 : -2))
      throw new ShapeError(`matmul: expected equal inner dimensions, got ${label}`);
    return [{ dtype, shape: productShape(a, b, attributes) }];
  },
  vjp({ inputs: [a, b], attributes: { transposeA, transposeB, alpha }, cotangents: [cotangent], needs }) {
    const g = required(cotangent);
    const da = (): Tensor =>
      transposeA ? matmul(b, g, { transposeA: transposeB, transposeB: true, alpha }) : matmul(g, b, { transposeB: !transposeB, alpha });
    const db = (): Tensor =>
      transposeB ? matmul(g, a, { transposeA: true, transposeB: transposeA, alpha }) : matmul(a, g, { transposeA: !transposeA, alpha });
    return [needs[0] ? unbroadcast(da(), a) : undefined, needs[1] ? unbroadcast(db(), b) : undefined];
  },
  emit: (emitter, node) => emitProduct(emitter, node.inputs, node.attributes, emitter.output(node)),
};

const productShape = (a: Tensor, b: Tensor, { transposeA, transposeB }: MatmulAttributes): Dim[] => [
  ...broadcastShapes("matmul", a.shape.slice(0, -2), b.shape.slice(0, -2)),
  a.shape.at(transposeA ? -1 : -2) as Dim,
  b.shape.at(transposeB ? -2 : -1) as Dim,
];

const emitZeros = (emitter: Emitter, shape: Shape, dtype: DType, output: string): void =>
  emitter.node("Expand", [emitter.scalar(dtype, 0), emitter.sizes(shape)], [output]);

/** Writes alpha · op(a) op(b) into the value `output`, for this operator and for those with a product inside. */
export function emitProduct(emitter: Emitter, [a, b]: readonly Tensor[], attributes: MatmulAttributes, output: string): void {
  const { transposeA, transposeB, alpha } = attributes;
  const flags = { transA: transposeA ? 1 : 0, transB: transposeB ? 1 : 0, alpha: float(alpha) };
  // A sum of nothing is 0; FusedMatMul leaves the memory as it was.
  if (a.shape.at(transposeA ? -2 : -1) === 0) emitZeros(emitter, productShape(a, b, attributes), a.dtype, output);
  else if (a.dtype === "f64") emitProduct64(emitter, [a, b], attributes, output);
  else if (a.rank === 2 && b.rank === 2) emitter.node("Gemm", emitter.names([a, b]), [output], flags);
  else if (!transposeA && !transposeB && alpha === 1) emitter.node("MatMul", emitter.names([a, b]), [output]);
  else emitter.node("FusedMatMul", emitter.names([a, b]), [output], flags, contrib);
}

/**
 * A float64 product in plain operators: FusedMatMul has no float64 kernel, and the attribute alpha of Gemm is a float32. Nor may ONNX
 * Runtime move a factor next to a MatMul into such an attribute: a Max of one tensor, which it leaves alone, keeps them apart.
 */
function emitProduct64(emitter: Emitter, [a, b]: readonly Tensor[], attributes: MatmulAttributes, output: string): void {
  const { transposeA, transposeB, alpha } = attributes;
  const product = alpha === 1 ? output : emitter.temporary();
  if (a.rank === 2 && b.rank === 2) {
    emitter.node("Gemm", emitter.names([a, b]), [product], { transA: transposeA ? 1 : 0, transB: transposeB ? 1 : 0 });
  } else {
    const operand = (x: Tensor, transposed: boolean): string => {
      const perm = x.shape.map((_, i) => (i < x.rank - 2 ? i : i === x.rank - 2 ? i + 1 : i - 1));
      return emitter.value("Max", [transposed ? emitter.value("Transpose", [emitter.name(x)], { perm }) : emitter.name(x)]);
    };
    emitter.node("Max", [emitter.value("MatMul", [operand(a, transposeA), operand(b, transposeB)])], [product]);
  }
  if (alpha !== 1) emitter.node("Mul", [product, emitter.scalar("f64", alpha)], [output]);
}

export interface MatmulOptions {
  /** Use the transpose of the last two axes of `a`. Default false. */
  transposeA?: boolean;
  /** Use the transpose of the last two axes of `b`. Default false. */
  transposeB?: boolean;
  /** Factor of the product. Default 1. */
  alpha?: number;
}

/** alpha · op(a) op(b) over the last two axes; leading axes broadcast. [..., m, k] × [..., k, n] → [..., m, n]. */
export function matmul(a: Tensor, b: Tensor, { transposeA = false, transposeB = false, alpha = 1 }: MatmulOptions = {}): Tensor {
  const attributes = { transposeA, transposeB, alpha };
  // A matrix on the right of a batch is one large product, whose derivative with respect to it needs no sum over the batch.
  if (b.rank === 2 && a.rank > 2 && !transposeA && elementCount(a.shape) !== undefined) {
    const product = apply1(
      matmulOperator,
      [reshape(a, [elementCount(a.shape.slice(0, -1)) as number, a.shape.at(-1) as Dim]), b],
      attributes,
    );
    return reshape(product, [...a.shape.slice(0, -1), product.shape[1]]);
  }
  return apply1(matmulOperator, [a, b], attributes);
}

const manyRows = 128;

const linearOperator: Operator = {
  name: "linear",
  infer([x, weight, bias]) {
    const dtype = sameDType("linear", bias ? [x, weight, bias] : [x, weight]);
    if (weight.rank !== 2 || x.rank < 1 || x.shape.at(-1) !== weight.shape[1]) {
      throw new ShapeError(`linear: expected an input [..., in] and a weight [out, in], got ${x} and ${weight}`);
    }
    if (bias && (bias.rank !== 1 || bias.shape[0] !== weight.shape[0]))
      throw new ShapeError(`linear: expected a bias [${weight.shape[0]}], got ${bias}`);
    return [{ dtype, shape: [...x.shape.slice(0, -1), weight.shape[0]] }];
  },
  vjp({ inputs: [x, weight, bias], cotangents: [cotangent], needs }) {
    const g = required(cotangent);
    // The weight's derivative first: what comes next reads that of the input, which is then still in the cache.
    const dBias = bias && needs[2] ? sum(g, { axes: 0 }) : undefined;
    const dWeight = needs[1] ? matmul(g, x, { transposeA: true }) : undefined;
    return [needs[0] ? matmul(g, weight) : undefined, dWeight, dBias];
  },
  emit(emitter, node) {
    const [x, weight, bias] = node.inputs;
    const output = emitter.output(node);
    // Gemm first copies its bias into every row, on one thread: with many rows a parallel Add afterwards is faster (2 ms at 2048 x 1536).
    const [rows] = x.shape;
    const separate = bias !== undefined && typeof rows === "number" && rows >= manyRows;
    if (x.rank === 2 && !separate && weight.shape[1] !== 0)
      return emitter.node("Gemm", emitter.names(node.inputs), [output], { transB: 1 });
    const product = bias ? emitter.temporary() : output;
    if (weight.shape[1] === 0) emitZeros(emitter, node.outputs[0].shape, x.dtype, product);
    else if (x.rank === 2) emitter.node("Gemm", emitter.names([x, weight]), [product], { transB: 1 });
    else if (x.dtype === "f32") emitter.node("FusedMatMul", emitter.names([x, weight]), [product], { transB: 1 }, contrib);
    else emitProduct64(emitter, [x, weight], { transposeA: false, transposeB: true, alpha: 1 }, product);
    if (bias) emitter.node("Add", [product, emitter.name(bias)], [output]);
  },
};

/** x Wᵀ + b with W stored [out, in]: [..., in] → [..., out]. */
export function linear(x: Tensor, weight: Tensor, bias?: Tensor): Tensor {
  const parameters = bias ? [weight, bias] : [weight];
  if (x.rank === 2 || elementCount(x.shape) === undefined) return apply1(linearOperator, [x, ...parameters], {});
  const y = apply1(linearOperator, [reshape(x, [elementCount(x.shape.slice(0, -1)) as number, x.shape.at(-1) as Dim]), ...parameters], {});
  return reshape(y, [...x.shape.slice(0, -1), y.shape[1]]);
}

/**
 * Contraction of two tensors in index notation, `"bthd,bshd->bhts"`. Every letter of the output appears in an operand;
 * a letter of one operand alone that the output lacks is summed first. @throws ShapeError
 */
export function einsum(equation: string, a: Tensor, b: Tensor): Tensor {
  const match = /^([a-zA-Z]*),([a-zA-Z]*)->([a-zA-Z]*)$/.exec(equation.replaceAll(" ", ""));
  const fail = (why: string): never => {
    throw new ShapeError(`einsum: expected "ab,bc->ac" with operands that fit, got "${equation}" for ${a} and ${b}: ${why}`);
  };
  if (!match) return fail("not of this form");
  const output = match[3];
  let [left, right] = [match[1], match[2]];
  if (left.length !== a.rank || right.length !== b.rank) fail("one letter an axis");
  if ([left, right, output].some((letters) => new Set(letters).size !== letters.length)) fail("a letter is repeated within one operand");
  for (const letter of output) if (!left.includes(letter) && !right.includes(letter)) fail(`"${letter}" is in no operand`);
  const reduceLonely = (x: Tensor, letters: string, other: string): [Tensor, string] => {
    const lonely = [...letters].filter((letter) => !other.includes(letter) && !output.includes(letter));
    return [
      sum(x, { axes: lonely.map((letter) => letters.indexOf(letter)) }),
      [...letters].filter((letter) => !lonely.includes(letter)).join(""),
    ];
  };
  [a, left] = reduceLonely(a, left, right);
  [b, right] = reduceLonely(b, right, left);
  const sizes = new Map<string, Dim>();
  for (const [letters, x] of [
    [left, a],
    [right, b],
  ] as const) {
    for (const [axis, letter] of [...letters].entries()) {
      const known = sizes.get(letter);
      if (known !== undefined && known !== x.shape[axis]) fail(`"${letter}" is both ${known} and ${x.shape[axis]}`);
      sizes.set(letter, x.shape[axis]);
    }
  }
  const batch = [...left].filter((letter) => right.includes(letter) && output.includes(letter));
  const inner = [...left].filter((letter) => right.includes(letter) && !output.includes(letter));
  const rows = [...left].filter((letter) => !right.includes(letter));
  const columns = [...right].filter((letter) => !left.includes(letter));
  const dims = (letters: readonly string[]): Shape => letters.map((letter) => sizes.get(letter) as Dim);
  const size = (letters: readonly string[]): Dim => {
    const count = elementCount(dims(letters));
    return count ?? (letters.length === 1 ? dims(letters)[0] : fail("symbolic dimensions cannot be merged"));
  };
  const arrange = (x: Tensor, letters: string, order: readonly string[]): Tensor =>
    transpose(
      x,
      order.map((letter) => letters.indexOf(letter)),
    );
  const lhs = reshape(arrange(a, left, [...batch, ...rows, ...inner]), [...dims(batch), size(rows), size(inner)]);
  const rhs = reshape(arrange(b, right, [...batch, ...columns, ...inner]), [...dims(batch), size(columns), size(inner)]);
  const product = matmul(lhs, rhs, { transposeB: true });
  const order = [...batch, ...rows, ...columns];
  return transpose(
    reshape(product, dims(order)),
    [...output].map((letter) => order.indexOf(letter)),
  );
}
