// `longwave rl export <run>`: a trained policy as a plain ONNX file.
import { join } from "node:path";
import { z } from "zod";
import { isDiscrete } from "../../models/policy/config.ts";
import type { ControlPolicy } from "../../rl/control/policy-file.ts";
import { defineCommand } from "../command.ts";
import { policyFields } from "../policy-fields.ts";
import { table } from "../render/table.ts";

export const rlExport = defineCommand({
  name: "rl export",
  summary: "Write a trained policy as a plain ONNX file",
  description: `One file that any ONNX Runtime runs without longwave. n is the number of observations in a call:

  in   observations  float32 [n, F]  as the environment gives them;
                                     discrete ones one-hot
  out  actions       int64 [n]       of Discrete actions
                     int64 [n, A]    of MultiDiscrete and MultiBinary
                     float32 [n, A]  of a Box, within its bounds
  out  values        float32 [n]     expected return from here
  out  logits        float32 [n, K]  of discrete and binary actions, or
       means         float32 [n, A]  of a Box, before its bounds are applied

Actions are the most probable ones. Observations are normalised inside the file where the run normalised them: give them as they are. Masks of
forbidden actions are not inside: apply them to logits. With onnxruntime-node:

  import { InferenceSession, Tensor } from "onnxruntime-node";
  const session = await InferenceSession.create("policy.onnx");
  const observation = Float32Array.of(0, 0, 0.02, 0);
  const observations = new Tensor("float32", observation, [1, 4]);
  const { actions, values } = await session.run({ observations });
  console.log(actions.data[0], values.data[0]);`,
  schema: z.object({
    ...policyFields,
    output: z.string().min(1).optional().describe("Where to write the file. Default: policy.onnx in the folder."),
  }),
  positionals: ["run"],
  hasJson: true,
  examples: [{ command: "rl export runs/20260131-120000-ppo-CartPole-v1 --output cart-pole.onnx", note: "the run's best policy" }],
  run: async ({ run, output, checkpoint }, context) => {
    const { locatePolicy } = await import("../../recipes/index.ts");
    const { exportPolicy } = await import("../../rl/control/export.ts");
    const { control, path, description, environmentSteps } = locatePolicy(run, checkpoint);
    const target = output ?? join(run, "policy.onnx");
    exportPolicy(control, target);
    const { environment } = control;
    const tensors = tensorsOf(control);
    if (context.json)
      return context.printJson({ path: target, policy: description, checkpoint: path, environmentSteps, environment, tensors });
    context.print(`policy: ${description}: ${context.phrase(path)}`);
    context.print(`file:   ${context.phrase(target)}`);
    const normalised = control.normaliser?.settings.observations
      ? "as the environment gives them: the file normalises them"
      : "as the environment gives them";
    const rows = tensors.map(({ name, dtype, shape }, i) => [name, dtype, `[${shape.join(", ")}]`, i === 0 ? `in, ${normalised}` : "out"]);
    context.print(table(rows, { indent: 2 }).trimEnd());
  },
});

/** Names, types and shapes of the file's input and outputs; see `policyToOnnx`. */
function tensorsOf({ policy: { config }, actionSpace }: ControlPolicy) {
  const { head, observationSize } = config;
  const isWhole = actionSpace.kind !== "box";
  const size = actionSpace.kind === "box" ? actionSpace.low.length : actionSpace.kind === "multi-discrete" ? actionSpace.dims.length : 0;
  const numActions = actionSpace.kind === "multi-binary" ? actionSpace.n : size;
  const numOutputs =
    actionSpace.kind === "discrete"
      ? actionSpace.n
      : actionSpace.kind === "multi-discrete"
        ? actionSpace.dims.reduce((sum, n) => sum + n, 0)
        : numActions;
  const raw = isDiscrete(head) || head.kind === "bernoulli" ? "logits" : "means";
  return [
    { name: "observations", dtype: "float32", shape: ["n", observationSize] },
    { name: "actions", dtype: isWhole ? "int64" : "float32", shape: actionSpace.kind === "discrete" ? ["n"] : ["n", numActions] },
    { name: "values", dtype: "float32", shape: ["n"] },
    { name: raw, dtype: "float32", shape: ["n", numOutputs] },
  ];
}
