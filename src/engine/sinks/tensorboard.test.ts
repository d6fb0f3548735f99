// The files are read back by a reader written here from the format's definition: framing bit by bit, messages field by field.
import { mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import type { RunEvent } from "../events.ts";
import { varint } from "./protobuf.ts";
import { createTensorBoardSink } from "./tensorboard.ts";

let directory: string;
beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), "longwave-tensorboard-"));
});
afterEach(() => rmSync(directory, { recursive: true, force: true }));

/** CRC-32C by long division, bit by bit, and its mask. */
function masked(bytes: Uint8Array): number {
  let crc = 0xffffffffn;
  for (const byte of bytes) {
    crc ^= BigInt(byte);
    for (let bit = 0; bit < 8; bit++) crc = crc & 1n ? (crc >> 1n) ^ 0x82f63b78n : crc >> 1n;
  }
  crc ^= 0xffffffffn;
  return Number((((crc >> 15n) | ((crc << 17n) & 0xffffffffn)) + 0xa282ead8n) & 0xffffffffn);
}

type Field = number | Buffer;
type Message = Map<number, Field[]>;

function decode(bytes: Buffer): Message {
  const message: Message = new Map();
  let at = 0;
  const readVarint = (): number => {
    let value = 0;
    for (let shift = 0; ; shift++) {
      const byte = bytes[at++];
      value += (byte & 127) * 128 ** shift;
      if (byte < 128) return value;
    }
  };
  while (at < bytes.length) {
    const tag = readVarint();
    let value: Field;
    switch (tag & 7) {
      case 0:
        value = readVarint();
        break;
      case 1:
        value = bytes.readDoubleLE(at);
        at += 8;
        break;
      case 5:
        value = bytes.readFloatLE(at);
        at += 4;
        break;
      case 2: {
        const length = readVarint();
        value = bytes.subarray(at, at + length);
        at += length;
        break;
      }
      default:
        throw new Error(`wire type ${tag & 7}`);
    }
    expect(at).toBeLessThanOrEqual(bytes.length);
    message.set(tag >> 3, [...(message.get(tag >> 3) ?? []), value]);
  }
  return message;
}

const first = (message: Message, field: number): Field | undefined => message.get(field)?.[0];
const child = (message: Message, field: number): Message => decode(first(message, field) as Buffer);

interface Read {
  wallTime: number;
  step: number;
  version?: string;
  sessionStatus?: number;
  values: { tag: string; scalar?: number; text?: string; plugin?: string }[];
}

function readEventFile(path: string): Read[] {
  const bytes = readFileSync(path);
  const events: Read[] = [];
  for (let at = 0; at < bytes.length; ) {
    const length = Number(bytes.readBigUInt64LE(at));
    expect(bytes.readUInt32LE(at + 8)).toBe(masked(bytes.subarray(at, at + 8)));
    const payload = bytes.subarray(at + 12, at + 12 + length);
    expect(bytes.readUInt32LE(at + 12 + length)).toBe(masked(payload));
    at += length + 16;
    const event = decode(payload);
    const values = event.has(5) ? (child(event, 5).get(1) ?? []) : [];
    events.push({
      wallTime: first(event, 1) as number,
      step: (first(event, 2) as number | undefined) ?? 0,
      version: first(event, 3)?.toString(),
      sessionStatus: event.has(7) ? (first(child(event, 7), 1) as number) : undefined,
      values: values.map((bytesOfValue) => {
        const value = decode(bytesOfValue as Buffer);
        const tensor = value.has(8) ? child(value, 8) : undefined;
        if (tensor) {
          expect(first(tensor, 1)).toBe(7);
          expect(first(child(child(tensor, 2), 2), 1)).toBe(1);
        }
        return {
          tag: String(first(value, 1)),
          scalar: first(value, 2) as number | undefined,
          text: tensor && String(first(tensor, 8)),
          plugin: value.has(9) ? String(first(child(child(value, 9), 1), 1)) : undefined,
        };
      }),
    });
  }
  return events;
}

const base = { total: 1000, time: 1_700_000_000_500 };
const step = (n: number, metrics: Record<string, number>): RunEvent => ({
  ...base,
  kind: "step",
  step: n,
  metrics,
  seconds: 2,
  tokens: 100,
  elapsedSeconds: 0,
  totalTokens: 0,
  remainingSeconds: 0,
});

test("scalars and texts come back", () => {
  const sink = createTensorBoardSink(directory);
  sink.write({ ...base, kind: "run-start", step: 0, config: { seed: 3 } });
  sink.write(step(1, { loss: 0.5, "control/return": -200 }));
  sink.write(step(300, { loss: Number.NaN }));
  sink.write({ ...base, kind: "evaluation", step: 300, metrics: { loss: 2 ** -30 }, seconds: 1, best: true });
  sink.write({ ...base, kind: "sample", step: 300, sample: "Zwölf Boxkämpfer 🥊" });
  sink.close();
  const [name, ...others] = readdirSync(directory);
  expect(others).toEqual([]);
  expect(name).toMatch(/^events\.out\.tfevents\.1700000000\.[A-Za-z0-9.-]+\.\d+\.0$/);
  const events = readEventFile(join(directory, name));
  expect(events[0]).toEqual({ wallTime: 1_700_000_000.5, step: 0, version: "brain.Event:2", sessionStatus: undefined, values: [] });
  expect(events.slice(1).map(({ step, values }) => [step, values.map(({ tag, scalar, text }) => [tag, scalar ?? text])])).toEqual([
    [0, [["config", '    {\n      "seed": 3\n    }']]],
    [
      1,
      [
        ["train/loss", 0.5],
        ["control/return", -200],
        ["train/tokensPerSecond", 50],
      ],
    ],
    [
      300,
      [
        ["train/loss", Number.NaN],
        ["train/tokensPerSecond", 50],
      ],
    ],
    [300, [["evaluation/loss", 2 ** -30]]],
    [300, [["sample", "    Zwölf Boxkämpfer 🥊"]]],
  ]);
  expect(events[1].values[0].plugin).toBe("text");
});

test("a resumed run starts a new file that tells where it goes on", () => {
  for (const resumedFrom of [undefined, "checkpoints/step-00000040"]) {
    const sink = createTensorBoardSink(directory);
    sink.write({ ...base, kind: "run-start", step: resumedFrom ? 40 : 0, resumedFrom });
    sink.write(step(41, { loss: 1 }));
    sink.close();
  }
  const names = readdirSync(directory).sort();
  expect(names.map((name) => name.at(-1))).toEqual(["0", "1"]);
  expect(readEventFile(join(directory, names[0])).map(({ sessionStatus }) => sessionStatus)).toEqual([undefined, undefined]);
  const [, session] = readEventFile(join(directory, names[1]));
  expect([session.step, session.sessionStatus]).toEqual([41, 1]);
});

test("varints beyond 32 bits", () => {
  expect([...varint(300)]).toEqual([0xac, 0x02]);
  expect([...varint(2 ** 35)]).toEqual([0x80, 0x80, 0x80, 0x80, 0x80, 0x01]);
});
