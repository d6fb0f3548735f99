// Numbers for people: counts, bytes, durations, and text that cannot command the terminal.

/** Three significant digits with a decimal prefix: 1234567 → `1.23 M`. */
export function formatCount(value: number): string {
  for (const [limit, suffix] of [
    [1e12, "T"],
    [1e9, "G"],
    [1e6, "M"],
    [1e3, "k"],
  ] as const) {
    // 999.6 k would round to 1000 k: it is 1 M.
    if (Math.abs(value) >= limit * 0.9995) return `${significant(value / limit)} ${suffix}`;
  }
  return Number.isInteger(value) ? String(value) : significant(value);
}

const significant = (value: number): string => {
  // Rounding first: 999.6 has as many digits before the point as 1000.
  const rounded = Number(value.toPrecision(3));
  return rounded.toFixed(Math.max(0, 2 - Math.floor(Math.log10(Math.max(Math.abs(rounded), 1e-2)))));
};

/** Binary units: 1536 → `1.5 KiB`. */
export function formatBytes(bytes: number): string {
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let value = bytes;
  let unit = 0;
  while (value >= 1024 && unit < units.length - 1) {
    value /= 1024;
    unit++;
  }
  return unit === 0 ? `${bytes} B` : `${value.toFixed(value < 100 ? 1 : 0)} ${units[unit]}`;
}

/** `42s`, `3m12s`, `2h05m`, `4d03h`; below ten seconds with one decimal; `?` when unknown. */
export function formatDuration(seconds: number): string {
  if (!Number.isFinite(seconds) || seconds < 0) return "?";
  if (seconds < 9.95) return `${seconds.toFixed(1)}s`;
  const total = Math.round(seconds);
  const pad = (value: number): string => String(Math.floor(value)).padStart(2, "0");
  if (total < 60) return `${total}s`;
  if (total < 3600) return `${Math.floor(total / 60)}m${pad(total % 60)}s`;
  if (total < 86_400) return `${Math.floor(total / 3600)}h${pad((total % 3600) / 60)}m`;
  return `${Math.floor(total / 86_400)}d${pad((total % 86_400) / 3600)}h`;
}

/** A metric: four significant digits, exponents only where they shorten. */
export function formatMetric(value: number): string {
  if (!Number.isFinite(value)) return String(value);
  if (value === 0 || Number.isInteger(value)) return String(value);
  const size = Math.abs(value);
  if (size < 1e-3 || size >= 1e6) return value.toExponential(2);
  return value.toFixed(Math.max(0, 3 - Math.floor(Math.log10(size))));
}

/** Control characters (escape sequences of generated or foreign text) become the replacement character; newlines and tabs stay. */
export function printable(text: string): string {
  // biome-ignore lint/suspicious/noControlCharactersInRegex: they are what is removed
  return text.replace(/[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u202a-\u202e\u2066-\u2069]/g, "\ufffd");
}
