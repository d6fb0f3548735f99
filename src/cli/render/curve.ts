// A curve in the terminal. Braille cells hold 2 × 4 dots each (U+2800 and one bit a dot); terminals without them get ASCII.
import type { CliIo } from "../io.ts";
import { formatMetric } from "./format.ts";

export interface CurveOptions {
  /** Characters. Default 60. */
  width?: number;
  /** Lines. Default 1. */
  height?: number;
  /** Default braille. */
  charset?: "braille" | "ascii";
}

/** Bits of the dots of one cell, [row from the top][column]. */
const dotBits = [
  [0x01, 0x08],
  [0x02, 0x10],
  [0x04, 0x20],
  [0x40, 0x80],
];

/** The finite values averaged into at most `count` bins of equal length. */
export function resample(values: readonly number[], count: number): number[] {
  const finite = values.filter(Number.isFinite);
  if (finite.length <= count) return finite;
  return Array.from({ length: count }, (_, bin) => {
    const part = finite.slice(Math.floor((bin * finite.length) / count), Math.floor(((bin + 1) * finite.length) / count));
    return part.reduce((sum, value) => sum + value, 0) / part.length;
  });
}

/** Lines of the curve, top first; values that are not finite are left out; no values give blank lines. */
export function curve(values: readonly number[], options: CurveOptions = {}): string[] {
  const { width = 60, height = 1, charset = "braille" } = options;
  const isBraille = charset === "braille";
  const columns = isBraille ? width * 2 : width;
  const rows = isBraille ? height * 4 : height;
  const points = resample(values, columns);
  const low = Math.min(...points);
  const high = Math.max(...points);
  const levels = points.map((value) => (high > low ? Math.round(((value - low) / (high - low)) * (rows - 1)) : 0));
  if (!isBraille) return asciiLines(levels, height);

  const cells = Array.from({ length: height }, () => new Uint8Array(width));
  levels.forEach((level, column) => {
    // The jump from the point before is drawn as a vertical stroke, so that steep parts stay connected.
    const before = levels[column - 1] ?? level;
    const [from, to] = level >= before ? [Math.min(before + 1, level), level] : [level, before - 1];
    for (let at = from; at <= to; at++) {
      const row = rows - 1 - at;
      cells[row >> 2][column >> 1] |= dotBits[row & 3][column & 1];
    }
  });
  return cells.map((line) => String.fromCodePoint(...[...line].map((bits) => 0x2800 + bits)).replace(/\u2800+$/, ""));
}

function asciiLines(levels: readonly number[], height: number): string[] {
  return Array.from({ length: height }, (_, line) =>
    levels
      .map((level) => (level === height - 1 - line ? (height === 1 ? "_" : "*") : " "))
      .join("")
      .trimEnd(),
  );
}

/** A curve with its range at the left: the largest value beside the first line, the smallest beside the last. */
export function labelledCurve(values: readonly number[], options: CurveOptions = {}): string[] {
  const points = values.filter(Number.isFinite);
  if (points.length === 0) return [];
  const binned = resample(points, (options.width ?? 60) * (options.charset === "ascii" ? 1 : 2));
  const labels = [formatMetric(Math.max(...binned)), formatMetric(Math.min(...binned))];
  const space = Math.max(...labels.map((label) => label.length));
  const lines = curve(values, options);
  return lines.map((line, index) => {
    const label = index === 0 ? labels[0] : index === lines.length - 1 ? labels[1] : "";
    return `${label.padStart(space)} |${line}`;
  });
}

/** Braille needs a UTF-8 locale, and the Linux console's fonts lack it. */
export function charsetFor(env: CliIo["env"], platform: string = process.platform): "braille" | "ascii" {
  if (env.TERM === "linux" || env.TERM === "dumb") return "ascii";
  if (platform === "win32") return env.WT_SESSION ? "braille" : "ascii";
  return /utf-?8/i.test(env.LC_ALL || env.LC_CTYPE || env.LANG || "") ? "braille" : "ascii";
}
