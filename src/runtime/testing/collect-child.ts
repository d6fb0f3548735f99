// Usage: collect-child.ts <threads>. With one thread nothing else holds the library: it would be unmapped with koffi's handle.
// Drops every reference to bound memory but the binding's own, collects, fills the heap with other bytes, and runs.
import { allocate, bufferFrom } from "../buffer.ts";
import { openNativeBackend } from "../native/backend.ts";
import { bindTo, runOnce, sessionOf, sharedProduct } from "./programs.ts";

const collect = (globalThis as unknown as { gc(): void }).gc;
const backend = openNativeBackend({ threads: Number(process.argv[2]) });
const size = 64;

/** Only the result is returned: inputs and weights are kept by the session and the binding alone. */
function bind(value: number) {
  const initializers = new Map([["w", bufferFrom("f32", [size, size], Array(size * size).fill(value))]]);
  const session = sessionOf(backend, sharedProduct(size, size), { initializers, prepack: value % 2 === 0 });
  const z = allocate("f32", [1, size]);
  const binding = bindTo(session, { x: bufferFrom("f32", [1, size], Array(size).fill(1)) }, { z });
  for (let i = 0; i < 20; i++) binding.setInput("x", bufferFrom("f32", [1, size], Array(size).fill(i === 19 ? 1 : 99)));
  return { z, binding };
}

const programs = Array.from({ length: 30 }, (_, value) => bind(value));
for (let round = 0; round < 10; round++) {
  collect();
  const garbage = Array.from({ length: 50 }, () => new Float32Array(size * size).fill(Number.NaN));
  for (const [value, { z, binding }] of programs.entries()) {
    if (round % 2 === 0) binding.run();
    else await binding.runAsync();
    if (z.data.some((element) => element !== size * value)) throw new Error(`program ${value}: got ${z.data[0]}`);
  }
  if (garbage.length !== 50) throw new Error("unreachable");
}
runOnce(
  backend,
  sharedProduct(1, 1),
  { x: bufferFrom("f32", [1, 1], [1]) },
  { z: allocate("f32", [1, 1]) },
  {
    initializers: new Map([["w", bufferFrom("f32", [1, 1], [1])]]),
  },
);
backend.dispose();
console.log("ok");
