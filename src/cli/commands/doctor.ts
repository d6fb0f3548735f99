// `longwave doctor`: does compute work here, through which backend, how fast, and what mends it when it does not.
import { z } from "zod";
import { BackendError, LongwaveError } from "../../base/errors.ts";
import type { Machine } from "../../runtime/machine.ts";
import type { Speed } from "../../runtime/measure.ts";
import { type CommandContext, defineCommand } from "../command.ts";
import { formatBytes } from "../render/format.ts";
import { table } from "../render/table.ts";
import { packageVersion } from "../version.ts";

interface Problem {
  readonly what: string;
  /** The command or setting that mends it. */
  readonly remedy: string;
}

export interface DoctorReport {
  readonly longwave: string;
  readonly machine: Machine;
  /** Undefined when ONNX Runtime does not load at all. */
  readonly runtime:
    | {
        backend: string;
        onnxruntime: string;
        threads: number;
        ownKernels: readonly string[];
        /** Which form of them was taken; undefined without. */
        ownKernelsFor?: "AVX2" | "AVX-512 VNNI";
        fallbackReason?: string;
      }
    | undefined;
  readonly speed: Speed | undefined;
  readonly problems: readonly Problem[];
}

export const doctor = defineCommand({
  name: "doctor",
  summary: "Check the installation and measure this machine",
  description: "Loads ONNX Runtime, says which way it is called, and times a matrix product and a memory read (about two seconds).",
  schema: z.object({
    measure: z.boolean().default(true).describe("Time a matrix product and a memory read."),
  }),
  hasJson: true,
  examples: [
    { command: "doctor", note: "what is loaded, and how fast" },
    { command: "doctor --json --no-measure", note: "for scripts; exit code 1 when compute does not work" },
  ],
  run: async ({ measure }, context) => {
    const report = await examine(measure, context);
    if (context.json) context.printJson(report);
    else print(report, context);
    if (report.runtime === undefined) {
      throw new BackendError("doctor: expected ONNX Runtime to load, got an installation without it", { hint: report.problems[0]?.remedy });
    }
  },
});

const reinstall = "ONNXRUNTIME_NODE_INSTALL=skip npm install longwave";

async function examine(measure: boolean, context: CommandContext): Promise<DoctorReport> {
  const { describeMachine } = await import("../../runtime/machine.ts");
  const { measureSpeed } = await import("../../runtime/measure.ts");
  const { ownKernels } = await import("../../runtime/own-kernels.ts");
  const problems: Problem[] = [];
  const machine = describeMachine();
  let runtime: DoctorReport["runtime"];
  let speed: Speed | undefined;
  try {
    const { backend, fallbackReason } = await context.openRuntime();
    const { name, version, threads, operators, operatorsFailure } = backend;
    const ownKernelsFor = operators.size === 0 ? undefined : ownKernels()?.endsWith("-vnni.so") ? "AVX-512 VNNI" : "AVX2";
    runtime = { backend: name, onnxruntime: version, threads, ownKernels: [...operators], ownKernelsFor, fallbackReason };
    if (fallbackReason !== undefined) {
      problems.push({
        what: `the C API of ONNX Runtime is not used (${fallbackReason}); results are the same, speed is lower`,
        remedy: reinstall,
      });
    }
    if (operatorsFailure !== undefined) {
      problems.push({
        what: `our own kernels, for 4- and 8-bit weights and attention over the cache, do not load (${operatorsFailure}); speed is lower`,
        remedy: reinstall,
      });
    }
    // A backend that loads and then cannot run a program is no working backend.
    if (measure) speed = measureSpeed(backend, machine.freeMemoryBytes);
  } catch (error) {
    runtime = undefined;
    const what = error instanceof Error ? error.message : String(error);
    problems.push({ what, remedy: (error instanceof LongwaveError ? error.hint : undefined) ?? reinstall });
  }
  return { longwave: packageVersion(), machine, runtime, speed, problems };
}

function print(report: DoctorReport, context: CommandContext): void {
  const { machine, runtime, speed, problems } = report;
  const { colors } = context.stdout;
  const extensions = machine.vectorExtensions.length === 0 ? "" : ` (${machine.vectorExtensions.join(", ")})`;
  const rows = [
    ["longwave", report.longwave],
    ["Node.js", `${machine.node} on ${machine.platform}`],
    ["processor", `${machine.cpu}${extensions}`],
    ["cores", `${machine.physicalCores} physical, ${machine.hardwareThreads} hardware threads`],
    ["memory", `${formatBytes(machine.memoryBytes)}, ${formatBytes(machine.freeMemoryBytes)} available`],
  ];
  if (runtime) {
    rows.push(["ONNX Runtime", `${runtime.onnxruntime}, backend ${runtime.backend}, ${runtime.threads} threads`]);
    if (runtime.ownKernels.length > 0)
      rows.push([
        "own kernels",
        `${runtime.ownKernels.join(", ")} for ${runtime.ownKernelsFor} (4- and 8-bit weights; attention over the cache)`,
      ]);
  }
  if (speed) {
    rows.push(["matrix product", `${speed.matmulGflops.toFixed(0)} GFLOP/s (float32, 1024 x 1024)`]);
    rows.push(["memory read", `${speed.readGBps.toFixed(1)} GB/s`]);
  }
  context.stdout.write(table(rows));
  if (problems.length === 0) context.print(colors.green("everything works"));
  for (const { what, remedy } of problems) {
    context.print(`${colors.yellow("problem:")} ${what}`);
    context.print(`${colors.cyan("remedy:")}  ${remedy}`);
  }
}
