import { Readable } from "node:stream";
import { describe, expect, it } from "vitest";
import { bufferedOutput } from "../io.ts";
import { runCli } from "../run-cli.ts";
import type { DoctorReport } from "./doctor.ts";

const run = async (argv: string[]) => {
  const stdout = bufferedOutput();
  const stderr = bufferedOutput();
  const io = { stdout, stderr, stdin: Readable.from([]), env: {}, signal: new AbortController().signal };
  return { code: await runCli(argv, io), out: stdout.text(), err: stderr.text() };
};

describe("doctor", () => {
  it("measures through the real runtime and reports as JSON", async () => {
    const { code, out, err } = await run(["doctor", "--json", "--threads", "1"]);
    expect(err).toBe("");
    expect(code).toBe(0);
    const report = JSON.parse(out) as DoctorReport;
    expect(report.runtime).toMatchObject({ threads: 1 });
    expect(["native", "binding"]).toContain(report.runtime?.backend);
    expect(report.runtime?.onnxruntime).toMatch(/^\d+\.\d+\.\d+/);
    // Any machine multiplies faster than 0.1 GFLOP/s and none, as yet, faster than 100 TFLOP/s on one core.
    expect(report.speed?.matmulGflops).toBeGreaterThan(0.1);
    expect(report.speed?.matmulGflops).toBeLessThan(1e5);
    expect(report.speed?.readGBps).toBeGreaterThan(0.1);
    expect(report.machine.freeMemoryBytes).toBeLessThanOrEqual(report.machine.memoryBytes);
    expect(report.machine.physicalCores).toBeLessThanOrEqual(report.machine.hardwareThreads);
  });

  it("prints the same as a table, and skips the measurement on request", async () => {
    const { code, out } = await run(["doctor", "--no-measure"]);
    expect(code).toBe(0);
    expect(out).toMatch(/^ONNX Runtime {2}\S+, backend (native|binding), \d+ threads$/m);
    expect(out).not.toContain("GFLOP/s");
  });
});
