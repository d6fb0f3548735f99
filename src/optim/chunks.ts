// Elementwise programs over flat buffers, in place and in cache-sized chunks: each operator is a pass over one chunk, so that what it
// reads is what the operator before it left in the cache. All memory is bound when the program is made; a run allocates nothing.
import { invariant, ShapeError } from "../base/errors.ts";
import type { Backend } from "../runtime/backend.ts";
import { type TensorBuffer, viewOf } from "../runtime/buffer.ts";
import type { FlatBuffer } from "../runtime/flat.ts";
import { type BoundProgram, compile, type Program, spec } from "../runtime/program.ts";
import type { Tensor } from "../tensor/graph.ts";
import { liveNodes } from "../tensor/onnx.ts";

/**
 * Elements of one chunk, as many for each thread as measured fastest for AdamW: 32,768 to 98,304 for one thread alone. A pool wants
 * more, because ONNX Runtime leaves an operator on 65,536 elements to one thread. The results do not depend on it.
 */
export const chunkLength = ({ threads }: Pick<Backend, "threads">): number => (threads === 1 ? 65_536 : 131_072 * threads);

type Tensors = Record<string, Tensor>;

/** Memory that one update passes over. */
export interface ChunkedRange {
  /** Equally long rank-1 buffers of one dtype, by name. */
  readonly buffers: Readonly<Record<string, TensorBuffer>>;
  /** Rank-0 buffers, read at every run. */
  readonly scalars: Readonly<Record<string, TensorBuffer>>;
}

/** New values of some of the buffers, from their old values and the scalars: elementwise operators only. */
export type ElementwiseBody = (values: Tensors, scalars: Tensors) => Tensors;

const specsOf = ({ buffers, scalars }: ChunkedRange) => ({
  values: mapValues(buffers, ({ dtype }) => spec(dtype, ["n"])),
  scalars: mapValues(scalars, ({ dtype }) => spec(dtype, [])),
});
type Specs = ReturnType<typeof specsOf>;

/** Runs `body` over every chunk of every range and writes its results over the buffers of the same names. */
export class ChunkedProgram {
  #program: Program<Specs, Tensors> | undefined;
  readonly #chunks: BoundProgram<Specs, Tensors>[] = [];

  /** All ranges have the same names and one dtype. A range may be empty. */
  constructor(backend: Backend, name: string, body: ElementwiseBody, ranges: readonly ChunkedRange[]) {
    let written: string[] = [];
    const make = (range: ChunkedRange): Program<Specs, Tensors> =>
      compile(
        backend,
        ({ values, scalars }) => {
          const results = body(values, scalars);
          for (const [key, result] of Object.entries(results)) checkInPlace(`${name}: ${key}`, values[key], result);
          written = Object.keys(results);
          return results;
        },
        specsOf(range),
        { name },
      );
    const chunk = chunkLength(backend);
    for (const range of ranges) {
      const total = Object.values(range.buffers)[0].data.length;
      for (const [key, { data }] of Object.entries(range.buffers))
        invariant(data.length === total, `${name}: ${key} has ${data.length} elements where ${total} are meant`);
      for (let start = 0; start < total; start += chunk) {
        // One program for chunks and remainders: a fixed length would not make it faster.
        this.#program ??= make(range);
        const values = mapValues(range.buffers, (buffer) => viewOf(buffer, [Math.min(chunk, total - start)], start));
        const outputs = Object.fromEntries(written.map((key) => [key, values[key]]));
        this.#chunks.push(this.#program.bind({ values, scalars: { ...range.scalars } }, outputs));
      }
    }
  }

  /** ONNX nodes of the program, which is the number of passes over a chunk. 0 when there is nothing to do. */
  get nodeCount(): number {
    return this.#program?.nodeCount ?? 0;
  }

  run(): void {
    for (const chunk of this.#chunks) chunk.run();
  }

  dispose(): void {
    this.#program?.dispose();
  }
}

/**
 * ONNX Runtime does not know that an output overwrites an input: every operator that reads the old value must be one that the new
 * value depends on, or the order of the two would be left to chance.
 */
function checkInPlace(what: string, old: Tensor, next: Tensor): void {
  const before = new Set(liveNodes([next]));
  const late = old.graph.nodes.find((node) => node.inputs.includes(old) && !before.has(node));
  invariant(late === undefined, `${what} may be overwritten before ${late?.operator.name} reads it`);
}

/** @throws ShapeError unless two flat buffers have the same leaves at the same places. */
export function checkSameLayout(what: string, a: FlatBuffer<unknown>, b: FlatBuffer<unknown>): void {
  const describe = ({ layout }: FlatBuffer<unknown>): string => `${layout.leaves.length} leaves in ${layout.dtype}[${layout.length}]`;
  const differs = (): string => {
    for (const [i, leaf] of a.layout.leaves.entries()) {
      const other = b.layout.leaves[i];
      if (other?.path !== leaf.path) return ` ("${leaf.path}" against "${other?.path}")`;
      if (other.offset !== leaf.offset || other.length !== leaf.length)
        return ` ("${leaf.path}": [${leaf.shape.join(", ")}] against [${other.shape.join(", ")}])`;
    }
    return "";
  };
  const difference = differs();
  if (difference === "" && describe(a) === describe(b)) return;
  throw new ShapeError(`${what}: expected two flat buffers of one layout, got ${describe(a)} and ${describe(b)}${difference}`, {
    hint: "Make both with allocateFlat(tree, layout) from the same layout.",
  });
}

function mapValues<A, B>(record: Readonly<Record<string, A>>, transform: (value: A) => B): Record<string, B> {
  return Object.fromEntries(Object.entries(record).map(([key, value]) => [key, transform(value)]));
}
