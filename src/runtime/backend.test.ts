// One suite for every backend: what the layers above may rely on.
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { AbortedError, BackendError, UsageError } from "../base/errors.ts";
import type { DType } from "../tensor/dtype.ts";
import type { Backend, OptimizationLevel } from "./backend.ts";
import { openBindingBackend } from "./binding/backend.ts";
import { allocate, bufferFrom, viewOf } from "./buffer.ts";
import { openNativeBackend } from "./native/backend.ts";
import { type NodeSpec, onnxModel } from "./testing/onnx.ts";
import { addition, bindTo, runOnce, sessionOf, sharedProduct } from "./testing/programs.ts";

const vector = (...values: number[]) => bufferFrom("f32", [values.length], values);

/** The hint of the error that `action` throws. */
function hintOf(action: () => unknown): string | undefined {
  try {
    action();
  } catch (error) {
    if (error instanceof BackendError) return error.hint;
    throw error;
  }
  return undefined;
}

describe.each([
  ["native", openNativeBackend],
  ["binding", openBindingBackend],
] as const)("%s backend", (name, open) => {
  let backend: Backend;
  beforeAll(() => {
    backend = open({ threads: 2 });
  });
  afterAll(() => backend.dispose());

  it("names itself and ONNX Runtime's version", () => {
    expect(backend.name).toBe(name);
    expect(backend.version).toMatch(/^1\.\d+\.\d+$/);
    expect(backend.threads).toBe(2);
  });

  it("runs a program and lists its inputs and outputs", () => {
    const session = sessionOf(backend, addition);
    expect(session.inputNames).toEqual(["x", "y"]);
    expect(session.outputNames).toEqual(["z"]);
    const z = allocate("f32", [3]);
    const binding = bindTo(session, { x: vector(1, 2, 3), y: vector(10, 20, 30) }, { z });
    binding.run();
    expect([...z.data]).toEqual([11, 22, 33]);
    session.dispose();
  });

  it("reads inputs anew at each run", () => {
    const [x, z] = [vector(1, 2), allocate("f32", [2])];
    const binding = bindTo(sessionOf(backend, addition), { x, y: vector(0, 0) }, { z });
    binding.run();
    x.data.fill(7);
    binding.run();
    expect([...z.data]).toEqual([7, 7]);
  });

  it("updates a buffer in place when it is input and output", () => {
    const x = vector(1, 2, 3);
    const binding = bindTo(sessionOf(backend, addition), { x, y: vector(1, 1, 1) }, { z: x });
    for (let i = 0; i < 5; i++) binding.run();
    expect([...x.data]).toEqual([6, 7, 8]);
  });

  it("binds views of one flat buffer", () => {
    const flat = bufferFrom("f32", [6], [1, 2, 3, 4, 0, 0]);
    const [x, y, z] = [viewOf(flat, [2]), viewOf(flat, [2], 2), viewOf(flat, [2], 4)];
    runOnce(backend, addition, { x, y }, { z });
    expect([...flat.data]).toEqual([1, 2, 3, 4, 4, 6]);
  });

  it("takes other shapes where a dimension is symbolic, back and forth", () => {
    const binding = bindTo(sessionOf(backend, addition), { x: vector(0), y: vector(0) }, { z: allocate("f32", [1]) });
    for (let round = 0; round < 3; round++) {
      for (let n = 1; n <= 12; n++) {
        const x = bufferFrom(
          "f32",
          [n],
          Array.from({ length: n }, (_, i) => i),
        );
        const z = allocate("f32", [n]);
        binding.setInput("x", x);
        binding.setInput("y", x);
        binding.setOutput("z", z);
        binding.run();
        expect([...z.data]).toEqual([...x.data].map((value) => 2 * value));
      }
    }
  });

  it("refuses an output buffer of another shape than the computed one", () => {
    const z = allocate("f32", [2]);
    const binding = bindTo(sessionOf(backend, addition), { x: vector(1, 2, 3), y: vector(1, 2, 3) }, { z });
    expect(() => binding.run()).toThrow(BackendError);
    expect(hintOf(() => binding.run())).toMatch(/output buffer/);
    expect([...z.data]).toEqual([0, 0]);
    binding.setOutput("z", allocate("f32", [3]));
    binding.run();
  });

  it("runs scalars and empty tensors", () => {
    const scalar = { inputs: { x: { shape: [] }, y: { shape: [] } }, outputs: { z: { shape: [] } }, nodes: addition.nodes };
    const z = allocate("f32", []);
    runOnce(backend, scalar, { x: bufferFrom("f32", [], [2]), y: bufferFrom("f32", [], [3]) }, { z });
    expect([...z.data]).toEqual([5]);

    runOnce(backend, addition, { x: allocate("f32", [0]), y: allocate("f32", [0]) }, { z: allocate("f32", [0]) });
    const bare = { dtype: "f32", shape: [0], data: new Float32Array(0) } as const;
    runOnce(backend, addition, { x: bare, y: bare }, { z: allocate("f32", [0]) });

    const sum = {
      inputs: { x: { shape: ["N"] } },
      outputs: { z: { shape: [] } },
      nodes: [{ op: "ReduceSum", inputs: ["x"], outputs: ["z"], attributes: { keepdims: 0 } }],
    };
    const total = bufferFrom("f32", [], [9]);
    runOnce(backend, sum, { x: allocate("f32", [0]) }, { z: total });
    expect(total.data[0]).toBe(0);
  });

  const [oneF16, oneBf16] = [0x3c00, 0x3f80];
  const casts: [DType, number, number][] = [
    ["f64", 1.5, 1.5],
    ["i32", -7, -7],
    ["i64", -7, -7],
    ["i8", -7, -7],
    ["u8", 200, 200],
    ["bool", 1, 1],
    ["f16", oneF16, 1],
  ];
  if (name === "native") casts.push(["bf16", oneBf16, 1]);
  it.each(casts)("passes %s both ways", (dtype, raw, value) => {
    const there = (from: DType, to: number): Parameters<typeof runOnce>[1] => ({
      inputs: { x: { dtype: from, shape: ["N"] } },
      outputs: { z: { dtype: to === 1 ? "f32" : dtype, shape: ["N"] } },
      nodes: [{ op: "Cast", inputs: ["x"], outputs: ["z"], attributes: { to } }],
    });
    const x = bufferFrom(dtype, [3], [raw, 0, raw]);
    const middle = allocate("f32", [3]);
    runOnce(backend, there(dtype, 1), { x }, { z: middle });
    expect([...middle.data]).toEqual([value, 0, value]);
    const back = allocate(dtype, [3]);
    const code = { f64: 11, i32: 6, i64: 7, i8: 3, u8: 2, bool: 9, f16: 10, bf16: 16, f32: 1 }[dtype];
    runOnce(backend, there("f32", code), { x: middle }, { z: back });
    expect([...back.data]).toEqual([...x.data]);
  });

  describe("outputs that share their memory inside the program", () => {
    const x = vector(1, 2, 3, 4);
    const two = bufferFrom("i64", [2], [2, 2]);
    const cases: [string, (number | string)[], NodeSpec[], Record<string, number[]>][] = [
      ["Identity of an input", [4], [{ op: "Identity", inputs: ["x"], outputs: ["a"] }], { a: [1, 2, 3, 4] }],
      ["Identity of an input, symbolic", ["N"], [{ op: "Identity", inputs: ["x"], outputs: ["a"] }], { a: [1, 2, 3, 4] }],
      ["Reshape of an input", ["N"], [{ op: "Reshape", inputs: ["x", "two"], outputs: ["m"] }], { m: [1, 2, 3, 4] }],
      [
        "two Identities of an input",
        [4],
        [
          { op: "Identity", inputs: ["x"], outputs: ["a"] },
          { op: "Identity", inputs: ["x"], outputs: ["b"] },
        ],
        { a: [1, 2, 3, 4], b: [1, 2, 3, 4] },
      ],
      [
        "a result and its Identity",
        ["N"],
        [
          { op: "Neg", inputs: ["x"], outputs: ["a"] },
          { op: "Identity", inputs: ["a"], outputs: ["b"] },
        ],
        { a: [-1, -2, -3, -4], b: [-1, -2, -3, -4] },
      ],
      [
        "a result and its Reshape",
        ["N"],
        [
          { op: "Neg", inputs: ["x"], outputs: ["a"] },
          { op: "Reshape", inputs: ["a", "two"], outputs: ["m"] },
        ],
        { a: [-1, -2, -3, -4], m: [-1, -2, -3, -4] },
      ],
      [
        "equal nodes, merged by ONNX Runtime",
        [4],
        [
          { op: "Neg", inputs: ["x"], outputs: ["a"] },
          { op: "Neg", inputs: ["x"], outputs: ["b"] },
        ],
        { a: [-1, -2, -3, -4], b: [-1, -2, -3, -4] },
      ],
      ["a constant", [4], [{ op: "Neg", inputs: ["x"], outputs: ["a"] }], { a: [-1, -2, -3, -4], two: [2, 2] }],
      ["Identity of a constant", [4], [{ op: "Identity", inputs: ["two"], outputs: ["c"] }], { c: [2, 2] }],
    ];
    it.each(cases)("%s", (_, shape, nodes, expected) => {
      for (const optimization of ["none", "all"] as const) {
        const isInteger = (output: string) => output === "two" || output === "c";
        const shapeOf = (output: string) => (output === "m" ? [2, 2] : isInteger(output) ? [2] : [4]);
        const dtypeOf = (output: string): DType => (isInteger(output) ? "i64" : "f32");
        const names = Object.keys(expected);
        const outputs = Object.fromEntries(names.map((output) => [output, allocate(dtypeOf(output), shapeOf(output))]));
        runOnce(
          backend,
          {
            inputs: { x: { shape } },
            constants: { two },
            outputs: Object.fromEntries(
              names.map((output) => [
                output,
                { dtype: dtypeOf(output), shape: output === "m" || isInteger(output) ? shapeOf(output) : shape },
              ]),
            ),
            nodes,
          },
          { x },
          outputs,
          { optimization },
        );
        for (const output of names) expect(Array.from(outputs[output].data, Number)).toEqual(expected[output]);
      }
    });

    it("an input as it is: refused, ONNX Runtime would leave the output alone", () => {
      expect(() => sessionOf(backend, { inputs: { x: { shape: [4] } }, outputs: { x: { shape: [4] } }, nodes: [] })).toThrow(
        /outputs that a node computes, got the inputs x/,
      );
    });
  });

  describe("shared initializers", () => {
    const weights = () => bufferFrom("f32", [4, 4], [1, 0, 0, 0, 0, 2, 0, 0, 0, 0, 3, 0, 0, 0, 0, 4]);
    const x = bufferFrom("f32", [1, 4], [1, 1, 1, 1]);

    it.each(["none", "basic", "extended", "all"] as OptimizationLevel[])("are used at optimization %s", (optimization) => {
      for (const prepack of [true, false]) {
        const z = allocate("f32", [1, 4]);
        runOnce(backend, sharedProduct(4, 4), { x }, { z }, { optimization, prepack, initializers: new Map([["w", weights()]]) });
        expect([...z.data]).toEqual([1, 2, 3, 4]);
      }
    });

    it("must be exactly those that the model declares", () => {
      const make = (buffers: Record<string, ReturnType<typeof allocate>>) => () =>
        sessionOf(backend, sharedProduct(4, 4), { initializers: new Map(Object.entries(buffers)) });
      expect(make({})).toThrow(/expected a buffer for each shared initializer, got none for w/);
      expect(make({ w: weights(), v: weights() })).toThrow(/initializer v: expected one of w/);
      expect(make({ w: allocate("f32", [2, 8]) })).toThrow("initializer w: expected f32[4, 4], got f32[2, 8]");
      expect(make({ w: allocate("f64", [4, 4]) })).toThrow("initializer w: expected f32[4, 4], got f64[4, 4]");
      expect(() => sessionOf(backend, sharedProduct(4, 4))).toThrow(/got none for w/);
    });
  });

  it("refuses wrong names, dtypes, shapes and missing buffers", () => {
    const session = sessionOf(backend, {
      inputs: { hidden: { shape: ["N", 4] }, mask: { shape: ["N", 4] } },
      outputs: { sum: { shape: ["N", 4] } },
      nodes: [{ op: "Add", inputs: ["hidden", "mask"], outputs: ["sum"] }],
    });
    const fine = () => allocate("f32", [2, 4]);
    const bind = (inputs: Record<string, ReturnType<typeof allocate>>, outputs: Record<string, ReturnType<typeof allocate>>) => () =>
      bindTo(session, inputs, outputs);
    expect(bind({ hidden: fine() }, { sum: fine() })).toThrow("bind: expected a buffer for each input, got none for mask");
    expect(bind({ hidden: fine(), mask: fine() }, {})).toThrow("bind: expected a buffer for each output, got none for sum");
    expect(bind({ hidden: fine(), mask: allocate("f64", [2, 4]) }, { sum: fine() })).toThrow(
      "input mask: expected f32[?, 4], got f64[2, 4]",
    );
    expect(bind({ hidden: fine(), mask: fine() }, { sum: allocate("f16", [2, 4]) })).toThrow(
      "output sum: expected f32[?, 4], got f16[2, 4]",
    );
    expect(bind({ hidden: fine(), mask: allocate("f32", [2, 5]) }, { sum: fine() })).toThrow(
      "input mask: expected f32[?, 4], got f32[2, 5]",
    );
    expect(bind({ hidden: fine(), mask: allocate("f32", [8]) }, { sum: fine() })).toThrow("input mask: expected f32[?, 4], got f32[8]");
    const binding = bind({ hidden: fine(), mask: fine() }, { sum: fine() })();
    expect(() => binding.setInput("hiden", fine())).toThrow(/input hiden: expected one of hidden, mask/);
    expect(hintOf(() => binding.setInput("hiden", fine()))).toBe("Did you mean hidden?");
    expect(() => binding.setOutput("total", fine())).toThrow(/output total: expected one of sum/);
    const detached = fine();
    structuredClone(detached.data.buffer, { transfer: [detached.data.buffer] });
    expect(() => binding.setInput("hidden", detached)).toThrow("input hidden: expected 8 elements for f32[2, 4], got 0");
    binding.run();
    session.dispose();
  });

  it("makes sessions on another thread, as on this one", async () => {
    const z = allocate("f32", [2]);
    const inputs = { x: vector(1, 2), y: vector(3, 5) };
    const session = await backend.createSessionAsync(onnxModel(addition));
    bindTo(session, inputs, { z }).run();
    expect([...z.data]).toEqual([4, 7]);
    session.dispose();
    await expect(backend.createSessionAsync(new Uint8Array([1, 2, 3]))).rejects.toThrow(BackendError);
    const initializers = new Map([["w", bufferFrom("f32", [2, 2], [1, 2, 3, 4])]]);
    const model = onnxModel(sharedProduct(2, 2));
    const several = await Promise.all(Array.from({ length: 20 }, () => backend.createSessionAsync(model, { initializers })));
    several[0].dispose();
    const product = allocate("f32", [1, 2]);
    bindTo(several[19], { x: bufferFrom("f32", [1, 2], [1, 2]) }, { z: product }).run();
    expect([...product.data]).toEqual([7, 10]);
    for (const one of several) one.dispose();
  });

  it("rejects when it is disposed of while a session is made", async () => {
    const own = open();
    const made = own.createSessionAsync(onnxModel(addition)).then(
      (session) => session,
      (error: unknown) => error,
    );
    own.dispose();
    const result = await made;
    // The addon has made it already, and it was disposed of with its backend.
    if (own.name === "native") expect(String(result)).toMatch(/disposed while a session was made/);
    await expect(own.createSessionAsync(onnxModel(addition))).rejects.toThrow(/Backend: this backend was disposed/);
  });

  it("reports ONNX Runtime's errors without source paths", () => {
    const make = (nodes: NodeSpec[]) => () =>
      sessionOf(backend, { inputs: { x: { shape: [3, 4] } }, outputs: { z: { shape: ["A", "B"] } }, nodes });
    expect(() => backend.createSession(new Uint8Array([1, 2, 3]))).toThrow(BackendError);
    expect(() => backend.createSession(new Uint8Array(0))).toThrow(BackendError);
    expect(make([{ op: "Nope", inputs: ["x"], outputs: ["z"] }])).toThrow(/No Op registered for Nope/);
    expect(make([{ op: "MatMul", inputs: ["x", "x"], outputs: ["z"] }])).toThrow(/Incompatible dimensions/);
    expect(make([{ op: "Neg", inputs: ["q"], outputs: ["z"] }])).toThrow(/'q' is not a graph input/);
    const noKernel = () =>
      sessionOf(backend, {
        inputs: { x: { dtype: "f64", shape: [2] } },
        outputs: { z: { dtype: "f64", shape: [2] } },
        nodes: [{ op: "Erf", inputs: ["x"], outputs: ["z"] }],
      });
    expect(noKernel).toThrow(/Could not find an implementation for Erf/);
    expect(hintOf(noKernel)).toMatch(/no kernel/);

    const gather = sessionOf(backend, {
      inputs: { x: { shape: ["N"] }, i: { dtype: "i64", shape: ["M"] } },
      outputs: { z: { shape: ["M"] } },
      nodes: [{ op: "Gather", inputs: ["x", "i"], outputs: ["z"] }],
    });
    const z = allocate("f32", [1]);
    const binding = bindTo(gather, { x: vector(5, 6), i: bufferFrom("i64", [1], [99]) }, { z });
    expect(() => binding.run()).toThrow(/^run: Gather node Gather_0: indices element out of data bounds, idx=99/);
    binding.setInput("i", bufferFrom("i64", [1], [1]));
    binding.run();
    expect(z.data[0]).toBe(6);

    const reshape = bindTo(
      sessionOf(backend, {
        inputs: { x: { shape: ["N"] }, s: { dtype: "i64", shape: [2] } },
        outputs: { z: { shape: ["A", "B"] } },
        nodes: [{ op: "Reshape", inputs: ["x", "s"], outputs: ["z"] }],
      }),
      { x: allocate("f32", [20]), s: bufferFrom("i64", [2], [3, 5]) },
      { z: allocate("f32", [3, 5]) },
    );
    expect(() => reshape.run()).toThrow(/Input shape:\{20\}, requested shape:\{3,5\}/);
    expect(() => reshape.run()).not.toThrow(/onnxruntime::|\.h:\d/);
  });

  it("runs asynchronously, one run of a binding at a time", async () => {
    const z = allocate("f32", [1]);
    const session = sessionOf(backend, addition);
    const binding = bindTo(session, { x: vector(1), y: vector(2) }, { z });
    const run = binding.runAsync();
    expect(() => binding.run()).toThrow(/no run in flight/);
    expect(() => binding.setInput("x", vector(3))).toThrow(/no run in flight/);
    await expect(binding.runAsync()).rejects.toThrow(/no run in flight/);
    await run;
    expect(z.data[0]).toBe(3);
    await binding.runAsync();
    binding.run();

    const others = Array.from({ length: 8 }, (_, i) => ({ x: vector(i), z: allocate("f32", [1]) }));
    await Promise.all(others.map(({ x, z: out }) => bindTo(session, { x, y: x }, { z: out }).runAsync()));
    expect(others.map(({ z: out }) => out.data[0])).toEqual(others.map((_, i) => 2 * i));
  });

  it("does not start a run whose signal is aborted", async () => {
    const z = allocate("f32", [1]);
    const binding = bindTo(sessionOf(backend, addition), { x: vector(1), y: vector(2) }, { z });
    await expect(binding.runAsync(AbortSignal.abort())).rejects.toThrow(AbortedError);
    expect(z.data[0]).toBe(0);
    await binding.runAsync(new AbortController().signal);
    expect(z.data[0]).toBe(3);
  });

  it("profiles a session and leaves no file behind", () => {
    const session = sessionOf(backend, addition, { profile: true });
    const binding = bindTo(session, { x: vector(1), y: vector(2) }, { z: allocate("f32", [1]) });
    for (let i = 0; i < 3; i++) binding.run();
    const events = session.endProfile();
    const additions = events.filter(({ operator }) => operator === "Add");
    expect(additions).toHaveLength(3);
    expect(additions[0].name).toBe("Add_0");
    expect(additions.every(({ microseconds }) => microseconds >= 0)).toBe(true);
    expect(() => session.endProfile()).toThrow(/profile: true/);
    binding.run();
    session.dispose();
    expect(() => sessionOf(backend, addition).endProfile()).toThrow(/profile: true/);
  });

  it("runs without the arena and with its own threads", () => {
    const z = allocate("f32", [2]);
    for (const options of [{ arena: false }, { threads: 1 }, { threads: 2 }]) {
      z.data.fill(0);
      runOnce(backend, addition, { x: vector(1, 2), y: vector(3, 4) }, { z }, options);
      expect([...z.data]).toEqual([4, 6]);
    }
    expect(() => sessionOf(backend, addition, { threads: 0 })).toThrow(UsageError);
    expect(() => open({ threads: 1.5 })).toThrow(UsageError);
  });

  it("throws after dispose, at every entry", async () => {
    const own = open();
    const session = sessionOf(own, addition, { profile: true });
    const inputs = { x: vector(1), y: vector(2) };
    const outputs = { z: allocate("f32", [1]) };
    const binding = bindTo(session, inputs, outputs);
    const other = bindTo(session, inputs, outputs);
    binding.dispose();
    binding.dispose();
    const refuses = async ({ run, runAsync, setInput, setOutput }: Record<string, () => unknown>) => {
      for (const entry of [run, setInput, setOutput]) expect(entry).toThrow(/Binding: this binding was disposed/);
      await expect(runAsync()).rejects.toThrow(/Binding: this binding was disposed/);
    };
    const entries = (of: typeof binding) => ({
      run: () => of.run(),
      runAsync: () => of.runAsync(),
      setInput: () => of.setInput("x", inputs.x),
      setOutput: () => of.setOutput("z", outputs.z),
    });
    await refuses(entries(binding));
    other.run();
    session.dispose();
    session.dispose();
    await refuses(entries(other));
    expect(() => bindTo(session, inputs, outputs)).toThrow(/Session: this session was disposed/);
    expect(() => session.endProfile()).toThrow(/Session: this session was disposed/);
    const last = bindTo(sessionOf(own, addition), inputs, outputs);
    own.dispose();
    own[Symbol.dispose]();
    await refuses(entries(last));
    expect(() => own.createSession(onnxModel(addition))).toThrow(/Backend: this backend was disposed/);
  });

  it("lets several backends live side by side", () => {
    const run = (of: Backend) => {
      const z = allocate("f32", [1]);
      runOnce(of, addition, { x: vector(1), y: vector(2) }, { z });
      return z.data[0];
    };
    const [one, two] = [open({ threads: 1 }), open({ threads: 3 })];
    expect([one, two].map(run)).toEqual([3, 3]);
    one.dispose();
    expect([two, backend].map(run)).toEqual([3, 3]);
    two.dispose();
    expect(run(backend)).toBe(3);
  });
});
