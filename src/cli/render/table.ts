// Plain aligned columns, two spaces apart, without frames: readable by people, cut and awk.
import type { Colors } from "../io.ts";

export interface TableOptions {
  /** One letter a column: l left (default), r right. */
  align?: string;
  header?: readonly string[];
  /** Spaces in front of every line. Default 0. */
  indent?: number;
  colors?: Colors;
}

/** Code points, not UTF-16 units; good enough for tables of names and numbers. */
const widthOf = (text: string): number => [...text].length;

/** The table as text; every line ends with a newline, none with spaces. */
export function table(rows: readonly (readonly string[])[], options: TableOptions = {}): string {
  const { align = "", header, indent = 0, colors } = options;
  const all = header ? [header, ...rows] : rows;
  const numColumns = Math.max(0, ...all.map((row) => row.length));
  const widths = Array.from({ length: numColumns }, (_, column) => Math.max(...all.map((row) => widthOf(row[column] ?? ""))));
  const format = (row: readonly string[]): string => {
    const cells = widths.map((width, column) => {
      const text = row[column] ?? "";
      const space = " ".repeat(width - widthOf(text));
      return align[column] === "r" ? space + text : text + space;
    });
    return " ".repeat(indent) + cells.join("  ").trimEnd();
  };
  return all
    .map(format)
    .map((line, index) => `${header && index === 0 && colors ? colors.bold(line) : line}\n`)
    .join("");
}
