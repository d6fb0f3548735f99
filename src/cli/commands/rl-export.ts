// `longwave rl export <run>`: a trained policy as a plain ONNX file.
import { join } from "node:path";
import { z } from "zod";
import { defineCommand } from "../command.ts";

export const rlExport = defineCommand({
  name: "rl export",
  summary: "Write a trained policy as a plain ONNX file",
  description: [
    "One file that any ONNX Runtime runs without longwave: observations as the environment gives them in (float32, discrete ones one-hot),",
    "actions as it takes them out, with the value and the logits or means beside them. The normalisation of observations is inside.",
  ].join("\n"),
  schema: z.object({
    run: z.string().min(1).describe("Run folder, one of its checkpoints, or the folder of a saved policy."),
    output: z.string().min(1).optional().describe("Where to write the file. Default: policy.onnx in the folder."),
    checkpoint: z.enum(["best", "latest"]).default("best").describe("Which checkpoint of a run, where its best one was kept."),
  }),
  positionals: ["run"],
  hasJson: true,
  examples: [{ command: "rl export runs/20260131-120000-ppo-CartPole-v1 --output cart-pole.onnx", note: "" }],
  run: async ({ run, output, checkpoint }, context) => {
    const { locatePolicy } = await import("../../recipes/index.ts");
    const { exportPolicy } = await import("../../rl/control/export.ts");
    const { control, path } = locatePolicy(run, checkpoint);
    const target = output ?? join(run, "policy.onnx");
    exportPolicy(control, target);
    if (context.json) return context.printJson({ path: target, checkpoint: path, environment: control.environment });
    context.print(`policy: ${context.phrase(target)} (from ${context.phrase(path)}; inputs and outputs: rl export --help)`);
  },
});
