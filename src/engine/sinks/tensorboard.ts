// TensorBoard event files: TFRecord framing (length, masked CRC-32C, payload, masked CRC-32C) around tensorflow.Event messages.
// Field numbers: event.proto, summary.proto and tensor.proto of TensorFlow. Scalars and texts; every record is written whole at once.
import { closeSync, openSync, writeSync } from "node:fs";
import { hostname } from "node:os";
import { join } from "node:path";
import { makeDirectories } from "../../base/make-directories.ts";
import type { Metrics, RunEvent } from "../events.ts";
import { tokensPerSecond } from "../events.ts";
import { maskedCrc32c } from "./crc32c.ts";
import { bytesField, concat, doubleField, floatField, varintField } from "./protobuf.ts";
import type { Sink } from "./sink.ts";

/**
 * Writes `events.out.tfevents.<seconds>.<host>.<process>.<n>` into `directory`, which TensorBoard reads as one run.
 * Step metrics appear as `train/<name>`, evaluations as `evaluation/<name>`; a name with a slash is kept as it is.
 * A resumed run opens a new file that starts with a session record: TensorBoard drops the points after that step from older files.
 */
export function createTensorBoardSink(directory: string): Sink {
  let file: number | undefined;
  const append = (time: number, step: number, ...what: Uint8Array[]): void => {
    if (file === undefined) {
      file = openEventFile(directory, time);
      writeRecord(file, encodeEvent(time, undefined, bytesField(eventField.fileVersion, "brain.Event:2")));
    }
    writeRecord(file, encodeEvent(time, step, ...what));
  };
  return {
    name: "TensorBoard event file",
    write(event) {
      switch (event.kind) {
        case "run-start":
          if (event.resumedFrom !== undefined) append(event.time, event.step + 1, sessionStart);
          else if (event.config)
            append(event.time, event.step, summary([text("config", codeBlock(JSON.stringify(event.config, null, 2)))]));
          break;
        case "step": {
          const values = scalars("train", event.metrics);
          if (event.tokens > 0) values.push(scalar("train/tokensPerSecond", tokensPerSecond(event)));
          append(event.time, event.step, summary(values));
          break;
        }
        case "evaluation":
          append(event.time, event.step, summary(scalars("evaluation", event.metrics)));
          break;
        case "sample":
          append(event.time, event.step, summary([text("sample", sampleText(event.sample))]));
          break;
        case "warning":
          append(event.time, event.step, summary([text("warning", event.message)]));
          break;
        case "checkpoint":
        case "run-end":
          break;
      }
    },
    close() {
      if (file !== undefined) closeSync(file);
      file = undefined;
    },
  };
}

const eventField = { wallTime: 1, step: 2, fileVersion: 3, summary: 5, sessionLog: 7 };

/** SessionLog { status: START }. */
const sessionStart = bytesField(eventField.sessionLog, varintField(1, 1));

const summary = (values: readonly Uint8Array[]): Uint8Array => bytesField(eventField.summary, values);

const scalars = (group: string, metrics: Metrics): Uint8Array[] =>
  Object.entries(metrics).map(([name, value]) => scalar(name.includes("/") ? name : `${group}/${name}`, value));

/** Summary.Value { tag, simple_value }. */
const scalar = (tag: string, value: number): Uint8Array => bytesField(1, [bytesField(1, tag), floatField(2, value)]);

/** Summary.Value { tag, tensor: one string, metadata: plug-in "text" }; rendered as Markdown. */
function text(tag: string, content: string): Uint8Array {
  const stringType = 7;
  const tensor = [varintField(1, stringType), bytesField(2, bytesField(2, varintField(1, 1))), bytesField(8, content)];
  const metadata = bytesField(1, bytesField(1, "text"));
  return bytesField(1, [bytesField(1, tag), bytesField(8, tensor), bytesField(9, metadata)]);
}

const codeBlock = (content: string): string => content.replace(/^/gm, "    ");

const sampleText = (sample: Extract<RunEvent, { kind: "sample" }>["sample"]): string =>
  codeBlock(typeof sample === "string" ? sample : JSON.stringify(sample, null, 2));

/** tensorflow.Event; wall time in seconds. */
const encodeEvent = (time: number, step: number | undefined, ...what: Uint8Array[]): Uint8Array =>
  concat([doubleField(eventField.wallTime, time / 1000), ...(step === undefined ? [] : [varintField(eventField.step, step)]), ...what]);

function writeRecord(file: number, payload: Uint8Array): void {
  const record = new Uint8Array(payload.length + 16);
  const view = new DataView(record.buffer);
  view.setBigUint64(0, BigInt(payload.length), true);
  view.setUint32(8, maskedCrc32c(record.subarray(0, 8)), true);
  record.set(payload, 12);
  view.setUint32(12 + payload.length, maskedCrc32c(payload), true);
  for (let written = 0; written < record.length; ) written += writeSync(file, record, written);
}

/** A fresh file: "wx" refuses one that exists, and the counter goes on. TensorBoard reads the files of a folder in order of name. */
function openEventFile(directory: string, time: number): number {
  makeDirectories(directory);
  const seconds = String(Math.floor(time / 1000)).padStart(10, "0");
  const host = hostname().replace(/[^A-Za-z0-9.-]/g, "-") || "host";
  for (let n = 0; ; n++) {
    try {
      return openSync(join(directory, `events.out.tfevents.${seconds}.${host}.${process.pid}.${n}`), "wx");
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== "EEXIST") throw error;
    }
  }
}
