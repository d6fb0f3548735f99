export { readRuns } from "./read-runs.ts";
export { type RenderOptions, renderReport } from "./render-report.ts";
export type { Artifact, LogEntry, RunRecord, Sample, Series } from "./run-record.ts";
export { type ReportOptions, type WrittenReport, writeReport } from "./write-report.ts";
