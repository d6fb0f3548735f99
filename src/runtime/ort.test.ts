import { describe, expect, it } from "vitest";
import { runtimeError, shorten } from "./ort.ts";

describe("shorten", () => {
  it("cuts the path and the C++ signature of a failing kernel", () => {
    expect(
      shorten(
        "Non-zero status code returned while running Reshape node. Name:'r' Status Message: /onnxruntime_src/onnxruntime/core/providers/cpu/tensor/reshape_helper.h:91 onnxruntime::ReshapeHelper::ReshapeHelper(const onnxruntime::TensorShape&, onnxruntime::TensorShapeVector&, bool) input_shape_size == requested_shape_size was false. Input shape:{20}\n",
      ),
    ).toBe("Reshape node r: input_shape_size == requested_shape_size was false. Input shape:{20}");
  });

  it("cuts template arguments, error names and stack traces", () => {
    expect(
      shorten("[ONNXRuntimeError] : 1 : FAIL : C:\\a\\b.cc:7 void f(int) const [with T = float] Too small.\nStacktrace:\n#0 0x1\n#1 0x2"),
    ).toBe("Too small.");
  });

  it("leaves an ordinary sentence alone and bounds its length", () => {
    expect(shorten("Invalid model. Node input 'q' is (not) a graph input.")).toBe("Invalid model. Node input 'q' is (not) a graph input.");
    expect(shorten("x".repeat(5000)).length).toBeLessThan(610);
  });
});

it("runtimeError adds what can be done", () => {
  expect(runtimeError("run", "Failed to allocate memory for requested buffer of size 9").hint).toMatch(/smaller model/);
  expect(runtimeError("run", "anything else").hint).toBeUndefined();
});
