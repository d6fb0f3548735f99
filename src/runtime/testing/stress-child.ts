// Usage: stress-child.ts <programs> <seed>. Makes programs of random shapes, keeps a few alive, runs and releases them in random
// order, checks every result, and prints { programs, wrong, bytesPerProgram }: growth of resident memory after a tenth of them.
import { allocate, bufferFrom, type TensorBuffer } from "../buffer.ts";
import { openNativeBackend } from "../native/backend.ts";
import { addition, type Buffers, bindTo, sessionOf, sharedProduct } from "./programs.ts";

const [count, seed] = process.argv.slice(2).map(Number);
const collect = (globalThis as unknown as { gc(): void }).gc;
const maxAlive = 12;

let state = seed;
const below = (n: number): number => {
  state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
  return Math.floor((state / 2 ** 32) * n);
};
const integers = (shape: number[]): TensorBuffer<"f32"> =>
  bufferFrom(
    "f32",
    shape,
    Array.from({ length: shape.reduce((a, b) => a * b, 1) }, () => below(9) - 4),
  );

interface Program {
  run(): Promise<boolean>;
  dispose(): void;
}

const backend = openNativeBackend({ threads: 2 });

/** Small integers: sums are exact in any order, so the check needs no tolerance. */
function createProgram(): Program {
  const shared = below(2) === 0;
  const [rows, k, n] = [1 + below(8), 1 + below(48), 1 + below(48)];
  const w = integers([k, n]);
  const session = shared
    ? sessionOf(backend, sharedProduct(k, n), { initializers: new Map([["w", w]]), prepack: below(2) === 0 })
    : sessionOf(backend, addition, { threads: below(4) === 0 ? 1 : undefined, arena: below(4) > 0 });
  const fresh = (): { inputs: Buffers; outputs: Buffers; expected: () => number[] } => {
    if (!shared) {
      const [x, y, z] = [integers([k]), integers([k]), allocate("f32", [k])];
      return { inputs: { x, y }, outputs: { z }, expected: () => Array.from(x.data, (value, i) => value + y.data[i]) };
    }
    const x = integers([rows, k]);
    const cell = (i: number) =>
      Array.from({ length: k }, (_, j) => x.data[Math.floor(i / n) * k + j] * w.data[j * n + (i % n)]).reduce((a, b) => a + b, 0);
    return {
      inputs: { x },
      outputs: { z: allocate("f32", [rows, n]) },
      expected: () => Array.from({ length: rows * n }, (_, i) => cell(i)),
    };
  };
  let memory = fresh();
  const binding = bindTo(session, memory.inputs, memory.outputs);
  return {
    async run() {
      if (below(3) === 0) {
        memory = fresh();
        for (const [name, buffer] of Object.entries(memory.inputs)) binding.setInput(name, buffer);
        binding.setOutput("z", memory.outputs.z);
      }
      if (below(3) === 0) await binding.runAsync();
      else binding.run();
      const { data } = memory.outputs.z;
      return memory.expected().every((value, i) => value === data[i]);
    },
    dispose() {
      const order = below(3);
      if (order === 0) binding.dispose();
      // A third of the sessions are released while a run is in flight.
      if (order === 1) void binding.runAsync();
      session.dispose();
    },
  };
}

const alive: Program[] = [];
let wrong = 0;
let warmBytes = 0;
for (let made = 0; made < count; ) {
  const action = below(4);
  if (action === 0 && alive.length < maxAlive) {
    alive.push(createProgram());
    made++;
    if (made % 50 === 0) collect();
    if (made === Math.floor(count / 10)) warmBytes = await settledBytes();
  } else if (action === 1 && alive.length > 0) {
    alive.splice(below(alive.length), 1)[0].dispose();
  } else if (alive.length > 0 && !(await alive[below(alive.length)].run())) {
    wrong++;
  }
}
const bytesPerProgram = ((await settledBytes()) - warmBytes) / (count - Math.floor(count / 10));
backend.dispose();
console.log(JSON.stringify({ programs: count, wrong, bytesPerProgram }));

/** Resident memory with no program alive and the heap collected. */
async function settledBytes(): Promise<number> {
  for (const program of alive.splice(0)) program.dispose();
  for (let i = 0; i < 3; i++) {
    await new Promise((resolve) => setTimeout(resolve, 20));
    collect();
  }
  return process.memoryUsage.rss();
}
