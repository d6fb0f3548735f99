// Medusa drafting: after each step the heads read the hidden row of its last accepted token and fill a static tree with their best guesses.
// The heads run as one call on that single row: on the rows of all nodes, inside the target's program, they would cost more than the
// call saves, because only one row is ever used.
import { invariant, UsageError } from "../../base/errors.ts";
import { outputMatrix } from "../../models/decoder/decoder.ts";
import type { InferenceModel } from "../../models/decoder/quantise.ts";
import { checkMedusaTarget, type MedusaHeads, medusaLogits } from "../../models/heads/medusa.ts";
import type { Backend } from "../../runtime/backend.ts";
import type { TensorBuffer } from "../../runtime/buffer.ts";
import { type BoundProgram, compile, type Program, spec } from "../../runtime/program.ts";
import type { DType } from "../../tensor/dtype.ts";
import type { Tensor } from "../../tensor/graph.ts";
import { topK } from "../../tensor/reduce.ts";
import { concat } from "../../tensor/shape.ts";
import { flatten, mapTree } from "../../tensor/tree.ts";
import type { DraftContext, Drafter, DraftTarget, StepOutcome } from "../drafter.ts";
import { rootOnly, sortChoices, type TokenTree, TreeShape } from "../token-tree.ts";

export interface MedusaDrafterOptions {
  /** Paths of the tree: `[0, 2]` is the third guess of head 1 under the first guess of head 0. */
  choices: readonly (readonly number[])[];
  /** Hash of the tokenizer that the heads were trained with. */
  tokenizerHash?: string;
}

type Specs = ReturnType<typeof specsOf>;
interface Outputs {
  /** [K, k] (i64), best first. */
  guesses: Tensor;
}

export class MedusaDrafter implements Drafter {
  readonly name = "medusa";
  readonly needs = { hidden: true };
  /** Of a full tree. */
  readonly shape: TreeShape;
  readonly #heads: MedusaHeads;
  readonly #tokenizerHash: string | undefined;
  readonly #program: Program<Specs, Outputs>;
  readonly #call: BoundProgram<Specs, Outputs>;
  /** [C] */
  readonly #row: Float32Array;
  /** Low words of the guesses [K, k] (i64). */
  readonly #guesses: Int32Array;
  /** By node: place of its token among the guesses. Node 0 is the root. */
  readonly #places: Int32Array;
  readonly #tree: TokenTree;
  readonly #rootIds = new Int32Array(1);
  #ready = false;

  /**
   * @param target the model that is drafted for: heads may read its output matrix.
   * @throws UsageError for heads of another model, or paths that the heads cannot fill.
   */
  constructor(backend: Backend, heads: MedusaHeads, target: InferenceModel, { choices, tokenizerHash }: MedusaDrafterOptions) {
    checkMedusaTarget(heads.config, target.config);
    const { config } = heads;
    const sorted = sortChoices(choices);
    const [depth, widest] = [Math.max(0, ...sorted.map((path) => path.length)), Math.max(0, ...sorted.flat())];
    if (depth > config.heads || widest >= config.vocabSize)
      throw new UsageError(`medusa: expected paths of at most ${config.heads} guesses, got a path of ${depth}`, {
        hint: "Train more heads, or use a tree that is less deep.",
      });
    this.#heads = heads;
    this.#tokenizerHash = tokenizerHash;
    this.shape = TreeShape.fromChoices(sorted);
    const numGuesses = widest + 1;
    this.#places = Int32Array.from([-1, ...sorted.map((path) => (path.length - 1) * numGuesses + (path.at(-1) as number))]);
    this.#program = compileHeads(backend, heads, target, numGuesses);
    this.#call = this.#program.bind();
    const { inputs, outputs } = this.#call as unknown as {
      inputs: { row: TensorBuffer<"f32"> };
      outputs: { guesses: TensorBuffer<"i64"> };
    };
    this.#row = inputs.row.data;
    const { data } = outputs.guesses;
    this.#guesses = new Int32Array(data.buffer, data.byteOffset, data.length * 2);
    this.#tree = { shape: this.shape, ids: new Int32Array(this.shape.size) };
  }

  begin({ config, tokenizerHash }: DraftTarget): void {
    checkMedusaTarget(this.#heads.config, config, { heads: this.#tokenizerHash, target: tokenizerHash });
    // Nothing is known of the last token of the prompt yet.
    this.#ready = false;
  }

  propose({ ids, numIds, maxDepth }: DraftContext): TokenTree {
    const root = ids[numIds - 1];
    if (!this.#ready || maxDepth === 0 || this.shape.size === 1) return rootOnly(root, this.#rootIds);
    this.#call.run();
    const tokens = this.#tree.ids;
    tokens[0] = root;
    for (let node = 1; node < tokens.length; node++) tokens[node] = this.#guesses[2 * this.#places[node]];
    return this.#tree;
  }

  observe({ path, numAccepted, rows }: StepOutcome): void {
    const { width } = this.#heads.config;
    invariant(rows.hidden, "the target gave no hidden rows");
    const start = path[numAccepted] * width;
    for (let i = 0; i < width; i++) this.#row[i] = rows.hidden[start + i];
    this.#ready = true;
  }

  dispose(): void {
    this.#program.dispose();
  }

  [Symbol.dispose](): void {
    this.dispose();
  }
}

const targetTree = (heads: MedusaHeads, target: InferenceModel) =>
  heads.config.unembedding === "shared" ? { matrix: outputMatrix(target.parameters.tree) } : {};

function specsOf(heads: MedusaHeads, target: InferenceModel) {
  const declare = ({ dtype, shape }: { dtype: string; shape: readonly (number | string)[] }) => spec(dtype as DType, shape);
  return {
    row: spec("f32", [1, heads.config.width]),
    heads: mapTree(heads.parameters.tree, declare),
    target: mapTree(targetTree(heads, target), declare),
  };
}

function compileHeads(backend: Backend, heads: MedusaHeads, target: InferenceModel, numGuesses: number): Program<Specs, Outputs> {
  const memory = { heads: heads.parameters.tree, target: targetTree(heads, target) };
  return compile(
    backend,
    (inputs): Outputs => {
      const { row, heads: parameters, target: shared } = inputs as never as { row: Tensor; heads: never; target: { matrix?: Tensor } };
      const logits = medusaLogits(parameters, row, shared.matrix && { config: target.config, matrix: shared.matrix });
      return { guesses: topK(logits.length === 1 ? logits[0] : concat(logits, 0), numGuesses).indices };
    },
    specsOf(heads, target),
    { name: "medusa heads", weights: new Map(flatten<TensorBuffer>(memory as never)) },
  );
}
