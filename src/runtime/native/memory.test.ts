// Memory that is ours: seen in place by programs, shared by sessions, safe under garbage collection.
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { AbortedError, BackendError } from "../../base/errors.ts";
import type { Backend, OptimizationLevel } from "../backend.ts";
import { allocate, bufferFrom, type TensorBuffer } from "../buffer.ts";
import { runChild } from "../testing/child.ts";
import type { ModelSpec } from "../testing/onnx.ts";
import { addition, bindTo, longProduct, sessionOf, sharedProduct } from "../testing/programs.ts";
import { openNativeBackend } from "./backend.ts";

let backend: Backend;
beforeAll(() => {
  backend = openNativeBackend({ threads: 2 });
});
afterAll(() => backend.dispose());

/** Repeatable numbers in [−0.5, 0.5). */
function noise(shape: number[], seed: number): TensorBuffer<"f32"> {
  const buffer = allocate("f32", shape);
  let state = seed;
  for (let i = 0; i < buffer.data.length; i++) {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    buffer.data[i] = state / 2 ** 32 - 0.5;
  }
  return buffer;
}

describe("shared initializers", () => {
  const product = (x: TensorBuffer<"f32">, w: TensorBuffer<"f32">): number[] => {
    const [rows, k] = x.shape;
    const n = w.shape[1];
    return Array.from({ length: rows * n }, (_, i) => {
      let sum = 0;
      for (let j = 0; j < k; j++) sum += x.data[Math.floor(i / n) * k + j] * w.data[j * n + (i % n)];
      return sum;
    });
  };
  const largestDifference = (a: ArrayLike<number>, b: ArrayLike<number>) =>
    Math.max(...Array.from(a, (value, i) => Math.abs(value - b[i])));

  it.each(["none", "basic", "extended", "all"] as OptimizationLevel[])(
    "updated in place are seen without prepacking, at %s",
    (optimization) => {
      const [x, w, z] = [noise([3, 32], 1), noise([32, 16], 2), allocate("f32", [3, 16])];
      const session = sessionOf(backend, sharedProduct(32, 16), { optimization, prepack: false, initializers: new Map([["w", w]]) });
      const binding = bindTo(session, { x }, { z });
      binding.run();
      expect(largestDifference(z.data, product(x, w))).toBeLessThan(1e-5);
      w.data.set(noise([32, 16], 3).data);
      binding.run();
      expect(largestDifference(z.data, product(x, w))).toBeLessThan(1e-5);
      session.dispose();
    },
  );

  it("give the same bytes at every optimisation level, packed or not", () => {
    const [x, w] = [noise([5, 64], 1), noise([64, 48], 2)];
    const results = (["none", "basic", "extended", "all"] as const).flatMap((optimization) =>
      [true, false].map((prepack) => {
        const z = allocate("f32", [5, 48]);
        const session = sessionOf(backend, sharedProduct(64, 48), { optimization, prepack, initializers: new Map([["w", w]]) });
        bindTo(session, { x }, { z }).run();
        session.dispose();
        return Buffer.from(z.data.buffer).toString("hex");
      }),
    );
    expect(new Set(results).size).toBe(1);
  });

  it("are one memory for training, evaluation and rollout", () => {
    // Training binds the weights as input and output; the other two hold them as initializers of other shapes of batch.
    const w = noise([8, 8], 4);
    const step: ModelSpec = {
      inputs: { w: { shape: [8, 8] }, g: { shape: [8, 8] } },
      outputs: { updated: { shape: [8, 8] } },
      nodes: [{ op: "Sub", inputs: ["w", "g"], outputs: ["updated"] }],
    };
    const train = bindTo(sessionOf(backend, step), { w, g: noise([8, 8], 5) }, { updated: w });
    const readers = [2, 7].map((rows) => {
      const [x, z] = [noise([rows, 8], rows), allocate("f32", [rows, 8])];
      const session = sessionOf(backend, sharedProduct(8, 8), { prepack: false, initializers: new Map([["w", w]]) });
      return { x, z, binding: bindTo(session, { x }, { z }), session };
    });
    for (let i = 0; i < 3; i++) {
      train.run();
      for (const { x, z, binding } of readers) {
        binding.run();
        expect(largestDifference(z.data, product(x, w))).toBeLessThan(1e-5);
      }
    }
    readers[0].session.dispose();
    train.run();
    readers[1].binding.run();
    expect(largestDifference(readers[1].z.data, product(readers[1].x, w))).toBeLessThan(1e-5);
  });

  it("refuse a node fed by weights alone, which would be folded from bytes that are not there", () => {
    const spec: ModelSpec = {
      ...sharedProduct(4, 4),
      nodes: [
        { op: "Neg", inputs: ["w"], outputs: ["n"] },
        { op: "MatMul", inputs: ["x", "n"], outputs: ["z"] },
      ],
    };
    const initializers = new Map([["w", noise([4, 4], 1)]]);
    for (const optimization of ["basic", "extended", "all"] as const) {
      expect(() => sessionOf(backend, spec, { optimization, initializers })).toThrow(/[Ii]s a directory|file/);
    }
    const [x, z] = [noise([1, 4], 2), allocate("f32", [1, 4])];
    bindTo(sessionOf(backend, spec, { optimization: "none", initializers }), { x }, { z }).run();
    expect(
      largestDifference(
        z.data,
        product(x, initializers.get("w")!).map((value) => -value),
      ),
    ).toBeLessThan(1e-6);
  });

  it("do not need the working directory", async () => {
    const { code, stdout, stderr } = await runChild("lost-folder-child.ts");
    expect(stderr).toBe("");
    expect(stdout.trim()).toBe("3,6,9,12");
    expect(code).toBe(0);
  });
});

describe("GroupQueryAttention", () => {
  const [heads, kvHeads, width, capacity] = [4, 2, 16, 32];
  const spec: ModelSpec = {
    inputs: {
      q: { shape: [1, "S", heads * width] },
      k: { shape: [1, "S", kvHeads * width] },
      v: { shape: [1, "S", kvHeads * width] },
      pastKey: { shape: [1, kvHeads, capacity, width] },
      pastValue: { shape: [1, kvHeads, capacity, width] },
      last: { dtype: "i32", shape: [1] },
      total: { dtype: "i32", shape: [] },
    },
    outputs: {
      out: { shape: [1, "S", heads * width] },
      key: { shape: [1, kvHeads, capacity, width] },
      value: { shape: [1, kvHeads, capacity, width] },
    },
    nodes: [
      {
        op: "GroupQueryAttention",
        domain: "com.microsoft",
        inputs: ["q", "k", "v", "pastKey", "pastValue", "last", "total"],
        outputs: ["out", "key", "value"],
        attributes: { num_heads: heads, kv_num_heads: kvHeads },
      },
    ],
  };

  it("writes new rows in place when past and present are one buffer: same bytes as the copying form", () => {
    const session = sessionOf(backend, spec);
    const attend = (inPlace: boolean) => {
      let [key, value] = [allocate("f32", [1, kvHeads, capacity, width]), allocate("f32", [1, kvHeads, capacity, width])];
      const outputs: string[] = [];
      let length = 0;
      for (const rows of [5, 1, 3, 1]) {
        const of = (columns: number, seed: number) => noise([1, rows, columns], seed + length);
        length += rows;
        const present = inPlace ? { key, value } : { key: allocate("f32", key.shape), value: allocate("f32", value.shape) };
        const out = allocate("f32", [1, rows, heads * width]);
        bindTo(
          session,
          {
            q: of(heads * width, 100),
            k: of(kvHeads * width, 200),
            v: of(kvHeads * width, 300),
            pastKey: key,
            pastValue: value,
            last: bufferFrom("i32", [1], [length - 1]),
            total: bufferFrom("i32", [], [length]),
          },
          { out, ...present },
        ).run();
        ({ key, value } = present);
        outputs.push(Buffer.from(out.data.buffer).toString("hex"));
      }
      return [...outputs, ...[key, value].map(({ data }) => Buffer.from(data.buffer).toString("hex"))];
    };
    expect(attend(true)).toEqual(attend(false));
  });
});

describe("asynchronous runs", () => {
  const [size, count] = [384, 400];
  const bindLong = (of: Backend = backend) => {
    const [x, z] = [noise([size, size], 1), allocate("f32", [size, size])];
    return { z, binding: bindTo(sessionOf(of, longProduct(size, count)), { x }, { z }) };
  };

  it("are stopped in flight by their signal, and run again afterwards", async () => {
    const { z, binding } = bindLong();
    const controller = new AbortController();
    const run = binding.runAsync(controller.signal);
    // A pool thread runs: the event loop is free to abort.
    setImmediate(() => controller.abort(new Error("stop")));
    await expect(run).rejects.toThrow(AbortedError);
    await expect(run).rejects.toMatchObject({ exitCode: 130, cause: new Error("stop") });
    expect(z.data.every((value) => value === 0)).toBe(true);
    await binding.runAsync();
    expect(z.data.some((value) => value !== 0)).toBe(true);
  });

  it("end before their memory is released by dispose", async () => {
    const own = openNativeBackend({ threads: 2 });
    const { z, binding } = bindLong(own);
    const run = binding.runAsync();
    own.dispose();
    expect(() => binding.run()).toThrow(/disposed/);
    await run;
    expect(z.data.some((value) => value !== 0)).toBe(true);
  });

  it("may be disposed and aborted at once", async () => {
    const { binding } = bindLong();
    const controller = new AbortController();
    const run = binding.runAsync(controller.signal);
    binding.dispose();
    controller.abort();
    await expect(run).rejects.toThrow(AbortedError);
    await expect(binding.runAsync()).rejects.toThrow(/disposed/);
  });

  it("of several bindings of one session go side by side", async () => {
    const session = sessionOf(backend, addition);
    const runs = Array.from({ length: 50 }, (_, i) => {
      const [x, z] = [bufferFrom("f32", [2], [i, -i]), allocate("f32", [2])];
      return { x, z, done: bindTo(session, { x, y: x }, { z }).runAsync() };
    });
    session.dispose();
    await Promise.all(runs.map(({ done }) => done));
    for (const { x, z } of runs) expect([...z.data]).toEqual([...x.data].map((value) => 2 * value));
  });
});

it("more runs in flight than koffi takes are refused, the others end", async () => {
  const session = sessionOf(backend, addition);
  const results = await Promise.allSettled(
    Array.from({ length: 400 }, (_, i) => {
      const x = bufferFrom("f32", [1], [i]);
      return bindTo(session, { x, y: x }, { z: allocate("f32", [1]) }).runAsync();
    }),
  );
  const refused = results.filter((result) => result.status === "rejected");
  expect(refused.length).toBe(400 - 256);
  for (const { reason } of refused) expect(reason).toBeInstanceOf(BackendError);
  session.dispose();
});

describe("garbage collection", () => {
  it.each([1, 2])("leaves bound memory and the library where they are, with %d threads", async (threads) => {
    const { code, signal, stdout, stderr } = await runChild("collect-child.ts", {
      flags: ["--expose-gc"],
      environment: { MALLOC_PERTURB_: "165" },
      args: [String(threads)],
    });
    expect({ code, signal, stderr }).toEqual({ code: 0, signal: null, stderr: "" });
    expect(stdout.trim()).toBe("ok");
  });
});
