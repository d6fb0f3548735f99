// How speculation went: figures, acceptance by position, and the cost of a step by its tokens, v(n).
import type { ChartSpec } from "./curves.ts";
import { formatNumber } from "./format.ts";
import { html, join, type Markup } from "./html.ts";
import { asFinite, asList, asText, isRecord } from "./json.ts";
import { box, size } from "./line-chart.ts";
import type { Artifact } from "./run-record.ts";

/** A figure of the headline: what, how much, of what unit. */
export interface Figure {
  readonly label: string;
  readonly value: string;
  readonly unit: string;
  readonly note?: string;
}

/** Tokens a second, from a number or from `{ tokensPerSecond }`, `{ tokens, seconds }`, `{ tokens, milliseconds }`. */
function rateOf(value: unknown): number | undefined {
  if (!isRecord(value)) return asFinite(value);
  const tokens = asFinite(value.tokens);
  const seconds = asFinite(value.seconds) ?? (asFinite(value.milliseconds) ?? Number.NaN) / 1000;
  const rate = asFinite(value.tokensPerSecond) ?? (tokens === undefined ? undefined : tokens / seconds);
  return rate !== undefined && Number.isFinite(rate) ? rate : undefined;
}

export function speculationFigures({ data }: Artifact): Figure[] {
  const [plain, speculative] = [rateOf(data.plain), rateOf(data.speculative)];
  const ratio = asFinite(data.ratio) ?? (plain !== undefined && plain > 0 && speculative !== undefined ? speculative / plain : undefined);
  const tokens = asFinite(data.tokensPerStep);
  const treeSize = asFinite(data.treeSize);
  const same = data.identical;
  const figures: (Figure | undefined)[] = [
    ratio === undefined ? undefined : { label: "Speed-up", value: formatNumber(ratio, 3), unit: "× plain decoding", note: "wall clock" },
    tokens === undefined
      ? undefined
      : { label: "Tokens per step", value: formatNumber(tokens, 3), unit: "tokens/step", note: "plain decoding: 1" },
    plain === undefined ? undefined : { label: "Plain decoding", value: formatNumber(plain, 3), unit: "tokens/s" },
    speculative === undefined ? undefined : { label: "With speculation", value: formatNumber(speculative, 3), unit: "tokens/s" },
    treeSize === undefined ? undefined : { label: "Token tree", value: formatNumber(treeSize), unit: "tokens", note: "verified a step" },
    typeof same !== "boolean"
      ? undefined
      : {
          label: "Text",
          value: same ? "identical" : "different",
          unit: "",
          note: same ? "to plain decoding, token by token" : "from plain decoding",
        },
  ];
  return figures.filter((figure) => figure !== undefined);
}

export function speculationNames({ data }: Artifact): [string, string][] {
  const names = [
    ["drafter", data.drafter],
    ["verifier", data.verifier],
  ] as const;
  return names.flatMap(([name, value]): [string, string][] => (asText(value) === undefined ? [] : [[name, value as string]]));
}

export function acceptanceBars({ data }: Artifact): Markup | undefined {
  const rates = asList(data.acceptanceByPosition).map((value) => asFinite(value));
  if (rates.length === 0) return undefined;
  const { width, height } = size;
  const { left, right, top, bottom } = box;
  const slot = (right - left) / rates.length;
  const y = (share: number): number => Math.round((bottom - Math.min(1, Math.max(0, share)) * (bottom - top)) * 10) / 10;
  const rows = [0, 0.25, 0.5, 0.75, 1].map(
    (share) =>
      html`<path class="grid" d="M${left} ${y(share)}H${right}"/><text class="tick y" x="${left - 6}" y="${y(share)}" dy="3.5">${share * 100}</text>`,
  );
  const barWidth = Math.min(54, slot * 0.62);
  const isCrowded = rates.length > 10;
  const bars = rates.map((rate, i) => {
    const middle = left + (i + 0.5) * slot;
    const text = rate === undefined ? "–" : formatNumber(rate * 100, 3);
    const value = isCrowded
      ? undefined
      : html`<text class="value" x="${middle.toFixed(1)}" y="${Math.max(top + 11, y(rate ?? 0) - 5)}">${text}</text>`;
    const number =
      isCrowded && i % Math.ceil(rates.length / 10) !== 0
        ? undefined
        : html`<text class="tick x" x="${middle.toFixed(1)}" y="${bottom + 15}" text-anchor="middle">${i + 1}</text>`;
    const bar = html`<rect class="bar" x="${(middle - barWidth / 2).toFixed(1)}" y="${y(rate ?? 0)}" width="${barWidth.toFixed(1)}" height="${(bottom - y(rate ?? 0)).toFixed(1)}"><title>position ${i + 1}: ${text} %</title></rect>`;
    return html`${bar}${value}${number}`;
  });
  const description = rates
    .map((rate, i) => `position ${i + 1} ${rate === undefined ? "unknown" : `${formatNumber(rate * 100, 3)} %`}`)
    .join(", ");
  return html`<figure class="chart"><figcaption><h4>Acceptance by position</h4><span class="unit">% of steps</span><span class="at">position in the draft</span></figcaption>
<div class="plot"><svg viewBox="0 0 ${width} ${height}" role="img" aria-label="Acceptance by position: ${description}">${join(rows)}<path class="axis" d="M${left} ${bottom}H${right}"/>${join(bars)}</svg></div>
</figure>
`;
}

/** v(n): milliseconds of one step that verifies n tokens. */
export function costCurve({ data }: Artifact): ChartSpec | undefined {
  const points = asList(data.costCurve)
    .filter(isRecord)
    .map((point) => [asFinite(point.tokens), asFinite(point.milliseconds)] as const)
    .filter((point): point is readonly [number, number] => point[0] !== undefined && point[1] !== undefined)
    .sort((a, b) => a[0] - b[0]);
  if (points.length === 0) return undefined;
  const line = { name: "v(n)", look: "points", steps: points.map(([n]) => n), values: points.map(([, ms]) => ms) } as const;
  return { title: "Cost of a step, v(n)", unit: "ms", axis: "tokens verified", lines: [line], fromZero: true, notFinite: [] };
}

/** What the cost curve means for the ratio: a step of the tree costs so many plain steps and yields so many tokens. */
export function costSentence(artifact: Artifact): string | undefined {
  const { lines: [line] = [] } = costCurve(artifact) ?? {};
  const treeSize = asFinite(artifact.data.treeSize);
  const tokens = asFinite(artifact.data.tokensPerStep);
  if (!line || treeSize === undefined || tokens === undefined) return undefined;
  const one = line.values[line.steps.indexOf(1)];
  const index = line.steps.findIndex((n) => n >= treeSize);
  const cost = index < 0 ? undefined : line.values[index];
  if (one === undefined || cost === undefined || one <= 0) return undefined;
  const factor = cost / one;
  return `A step that verifies ${line.steps[index]} tokens takes ${formatNumber(cost, 3)} ms, ${formatNumber(factor, 3)} times one of a single token (${formatNumber(one, 3)} ms), and yields ${formatNumber(tokens, 3)} tokens: at best ${formatNumber(tokens / factor, 3)} times the speed, before the cost of drafting.`;
}
