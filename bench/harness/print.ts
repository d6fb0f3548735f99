// Tables of results, and what they were measured on.
import { execFileSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { cpus, loadavg, platform, release, totalmem } from "node:os";
import type { CaseResult, Spread } from "./run.ts";

export interface Machine {
  cpu: string;
  cores: number;
  threads: number;
  memoryGb: number;
  system: string;
  node: string;
  onnxRuntime: string;
  commit: string;
  load: number;
}

export function describeMachine(threads: number, onnxRuntime: string): Machine {
  return {
    cpu: cpuModel(),
    cores: cpus().length,
    threads,
    memoryGb: Math.round(totalmem() / 2 ** 30),
    system: `${platform()} ${release()}`,
    node: process.version,
    onnxRuntime,
    commit: commit(),
    load: loadavg()[0],
  };
}

/** The name that the system gives; virtual machines often hide it, so family and model go with it. */
function cpuModel(): string {
  const name = cpus()[0]?.model.trim() || "unknown processor";
  if (platform() !== "linux") return name;
  const info = readFileSync("/proc/cpuinfo", "utf8");
  const field = (key: string) => new RegExp(`^${key}\\s*: (.*)$`, "m").exec(info)?.[1];
  const kinds = ["avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_tile"].filter((flag) => field("flags")?.split(" ").includes(flag));
  return `${name} (family ${field("cpu family")}, model ${field("model")}; ${kinds.join(", ")})`;
}

function commit(): string {
  try {
    return execFileSync("git", ["rev-parse", "--short", "HEAD"], { encoding: "utf8", stdio: ["ignore", "pipe", "ignore"] }).trim();
  } catch {
    return "unknown";
  }
}

export function machineLines(machine: Machine): string[] {
  const { cpu, cores, threads, memoryGb, system, node, onnxRuntime, commit, load } = machine;
  return [
    `${cpu}, ${cores} cores, ${memoryGb} GB, ${system}`,
    `${threads} threads each side, Node ${node}, ONNX Runtime ${onnxRuntime}, commit ${commit}`,
    ...(load > 0.5 ? [`Load average ${load.toFixed(1)}: something else is running, and these numbers mean little.`] : []),
  ];
}

const digits = (value: number): string => {
  if (value >= 100) return value.toFixed(0);
  return value.toFixed(value >= 10 ? 1 : 2);
};
const range = ({ median, min, max }: Spread): string => `${digits(median)} (${digits(min)} … ${digits(max)})`;

/** One row a contender: median (min … max), and the ratio to each peer. */
export function caseLines(result: CaseResult, missingPeer: string | undefined): string[] {
  const peers = result.contenders.filter(({ side }) => side === "peer").map(({ name }) => name);
  const header = [result.case, `median (min … max), ${result.unit}`, ...peers.map((name) => `ratio to ${name}`)];
  const rows = result.contenders.map(({ name, ratios, ...spread }) => [
    name,
    range(spread),
    ...peers.map((peer) => (ratios[peer] ? range(ratios[peer]) : "")),
  ]);
  const widths = header.map((title, column) => Math.max(title.length, ...rows.map((row) => row[column].length)));
  const line = (cells: readonly string[]) => `  ${cells.map((cell, column) => cell.padEnd(widths[column])).join("   ")}`.trimEnd();
  const notes = result.contenders.flatMap(({ name, note }) => (note ? [`${name}: ${note}`] : []));
  return [
    line(header),
    ...rows.map(line),
    ...[...notes, ...result.facts].map((note) => `    ${note}`),
    ...(missingPeer && peers.length === 0 ? [`    no peer: ${missingPeer}`] : []),
    "",
  ];
}
