// Numbers for readers: the fewest digits that tell them apart, with a true minus sign and separators in thousands.

const minus = "\u2212";
const withMinus = (text: string): string => text.replace(/-/g, minus);

/** Four significant digits; powers of ten only where they shorten: `2.313`, `12,345`, `3.0e−4`. */
export function formatNumber(value: number, digits = 4): string {
  if (Number.isNaN(value)) return "NaN";
  if (!Number.isFinite(value)) return value > 0 ? "∞" : `${minus}∞`;
  if (value === 0) return "0";
  const rounded = Number(value.toPrecision(digits));
  const size = Math.abs(rounded);
  if (size < 1e-3 || size >= 1e9) return withMinus(value.toExponential(Math.min(2, digits - 1)).replace("e+", "e"));
  if (Number.isInteger(value) || size >= 10 ** (digits - 1)) return withMinus(Math.round(value).toLocaleString("en-US"));
  if (Number.isInteger(rounded) && Math.abs(rounded - value) < 1e-9 * size) return withMinus(String(rounded));
  return withMinus(value.toFixed(Math.max(0, digits - 1 - Math.floor(Math.log10(size)))));
}

/** 1234567 → `1.23 M`. */
export function formatCount(value: number): string {
  const units = [
    [1e12, "T"],
    [1e9, "G"],
    [1e6, "M"],
    [1e3, "k"],
  ] as const;
  const unit = units.find(([size]) => Math.abs(value) >= size * 0.9995);
  if (!unit) return formatNumber(value, 3);
  const scaled = value / unit[0];
  return `${withMinus(scaled.toFixed(Math.max(0, 2 - Math.floor(Math.log10(Math.abs(scaled) * 1.0005)))))} ${unit[1]}`;
}

export function formatBytes(bytes: number): string {
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  const power = bytes < 1024 ? 0 : Math.min(units.length - 1, Math.floor(Math.log2(bytes) / 10));
  const value = bytes / 1024 ** power;
  return `${power === 0 ? value : value.toFixed(value < 100 ? 1 : 0)} ${units[power]}`;
}

/** `0.8 s`, `42 s`, `3 min 12 s`, `2 h 05 min`. */
export function formatDuration(seconds: number): string {
  if (!Number.isFinite(seconds) || seconds < 0) return "unknown";
  if (seconds < 9.95) return `${seconds.toFixed(1)} s`;
  const total = Math.round(seconds);
  const two = (value: number): string => String(Math.floor(value)).padStart(2, "0");
  if (total < 60) return `${total} s`;
  if (total < 3600) return `${Math.floor(total / 60)} min ${two(total % 60)} s`;
  return `${Math.floor(total / 3600).toLocaleString("en-US")} h ${two((total % 3600) / 60)} min`;
}

/** UTC, so that the page does not depend on where it is made. */
export function formatDate(milliseconds: number): string {
  const date = new Date(milliseconds);
  return Number.isNaN(date.getTime()) ? "unknown" : `${date.toISOString().slice(0, 16).replace("T", " ")} UTC`;
}

/** Rounded for the page's embedded data: five significant digits are finer than a pixel. */
export const compact = (value: number): number | null => (Number.isFinite(value) ? Number(value.toPrecision(5)) : null);
