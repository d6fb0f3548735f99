// Writing a checkpoint of 100 million float32 parameters: safetensors, atomic (written aside, renamed) and synced. The peer is the
// disk: the same bytes written plainly to one file and synced, in the same run.
import { closeSync, fsyncSync, mkdtempSync, openSync, rmSync, writeSync } from "node:fs";
import { join } from "node:path";
import { writeSafetensors } from "../src/formats/safetensors-write.ts";
import { allocate } from "../src/runtime/buffer.ts";
import type { Benchmark, Case, Context } from "./harness/benchmark.ts";

const numTensors = 100;
const rows = 1000;

export const checkpoint: Benchmark = {
  name: "checkpoint",
  summary: "write 100 M float32 parameters (400 MB) as safetensors, atomically and synced",
  peer: "(a plain write of the same bytes, in the same process)",
  seconds: 15,
  prepare,
};

function prepare({ cacheFolder, defer }: Context): Case[] {
  const folder = mkdtempSync(join(cacheFolder, "checkpoint-"));
  defer(() => rmSync(folder, { recursive: true, force: true }));
  const tensors = Array.from({ length: numTensors }, (_, index) => {
    const { data, shape } = allocate("f32", [rows, 1000]);
    data.fill(index + 0.5);
    return { name: `layers.${index}.weight`, dtype: "f32" as const, shape, data };
  });
  let growth = 0;
  const ours = (): number => {
    // The peak, not what is left: memory that is given back in time would not show otherwise.
    const before = process.resourceUsage().maxRSS;
    const start = performance.now();
    writeSafetensors(join(folder, "model.safetensors"), tensors);
    const elapsed = performance.now() - start;
    growth = Math.max(growth, process.resourceUsage().maxRSS - before);
    return elapsed;
  };
  const plain = (): number => {
    const start = performance.now();
    const file = openSync(join(folder, "plain.bin"), "w");
    for (const { data } of tensors) {
      const bytes = new Uint8Array(data.buffer, data.byteOffset, data.byteLength);
      for (let at = 0; at < bytes.length; ) at += writeSync(file, bytes, at);
    }
    fsyncSync(file);
    closeSync(file);
    return performance.now() - start;
  };
  return [
    {
      name: "one checkpoint",
      unit: "ms",
      contenders: [
        { name: "longwave safetensors", side: "ours", sample: ours },
        { name: "plain write and sync", side: "peer", sample: plain },
      ],
      facts: () => [
        `peak of resident memory grew by ${(growth / 1024).toFixed(1)} MB while writing ${((numTensors * rows * 1000 * 4) / 1e6).toFixed(0)} MB`,
      ],
    },
  ];
}
