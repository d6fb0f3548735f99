// One line chart as static SVG in a figure, and the numbers that the page's script needs for its read-out.
import type { ChartSpec, Line } from "./curves.ts";
import { compact, formatCount, formatNumber } from "./format.ts";
import { html, join, Markup } from "./html.ts";
import { linearTicks, logTicks, paddedDomain, position, type Scale } from "./scale.ts";
import { lastFinite, median } from "./series.ts";

export interface ChartData {
  /** Drawing area in units of the view box: left, right, top, bottom. */
  readonly box: readonly [number, number, number, number];
  readonly x: readonly [number, number];
  readonly y: readonly [number, number];
  readonly log: boolean;
  readonly axis: string;
  readonly lines: readonly { readonly steps: readonly number[]; readonly values: readonly (number | null)[] }[];
}

/** In units of the view box; speculation's bars have the same frame. */
export const size = { width: 340, height: 176 };
export const box = { left: 42, right: 334, top: 8, bottom: 154 };

/** @param id unique in the page. */
export function lineChart(id: string, spec: ChartSpec): { figure: Markup; data: ChartData } {
  const { x, y } = scalesOf(spec);
  const hasValues = spec.lines.some((line) => lastFinite(line) !== undefined);
  const grid = hasValues
    ? axes(x, y)
    : join([html`<text class="empty" x="${size.width / 2}" y="${size.height / 2}">no finite value</text>`]);
  const drawn = hasValues ? join(spec.lines.map((line) => drawLine(line, x, y))) : new Markup("");
  const description = spec.lines.map((line) => describe(line, spec)).join("; ");
  const figure = html`<figure class="chart" data-chart="${id}">
<figcaption><h4>${spec.title}</h4><span class="unit">${spec.unit}${y.kind === "log" ? ", log scale" : ""}</span><span class="at">${spec.axis} <b data-at>${lastStep(spec)}</b></span></figcaption>
<div class="plot"><svg viewBox="0 0 ${size.width} ${size.height}" role="img" aria-label="${`${spec.title}, ${spec.unit}, by ${spec.axis}: ${description}`}">${grid}${drawn}${crosses(spec, x)}</svg></div>
<ul class="legend">${spec.lines.map(legendEntry)}</ul>
${notFiniteNote(spec)}</figure>
`;
  return {
    figure,
    data: {
      box: [box.left, box.right, box.top, box.bottom],
      x: x.domain,
      y: y.domain,
      log: y.kind === "log",
      axis: spec.axis,
      lines: spec.lines.map(({ steps, values }) => ({ steps, values: values.map(compact) })),
    },
  };
}

function scalesOf({ lines, fromZero }: ChartSpec): { x: Scale; y: Scale } {
  const steps = lines.flatMap((line) => line.steps);
  const values = lines.flatMap(({ values, band }) => [...values, ...(band?.low ?? []), ...(band?.high ?? [])]).filter(Number.isFinite);
  const [firstStep, last] = [minimum(steps, 0), maximum(steps, 1)];
  const [low, high] = [minimum(values, 0), maximum(values, 1)];
  const middle = median(values) ?? 1;
  // A few values far above the rest would press the others flat.
  const isLog = !fromZero && low > 0 && high / low > 30 && high / middle > 8;
  const [bottom, top] = paddedDomain(fromZero ? Math.min(0, low) : low, high);
  return {
    x: { kind: "linear", domain: firstStep === last ? [firstStep - 1, last + 1] : [firstStep, last], range: [box.left, box.right] },
    y: { kind: isLog ? "log" : "linear", domain: isLog ? [low / 1.1, high * 1.1] : [bottom, top], range: [box.bottom, box.top] },
  };
}

// Not Math.min(...values): a million arguments overflow the stack.
const minimum = (values: readonly number[], fallback: number): number =>
  values.length === 0 ? fallback : values.reduce((a, b) => Math.min(a, b));
const maximum = (values: readonly number[], fallback: number): number =>
  values.length === 0 ? fallback : values.reduce((a, b) => Math.max(a, b));

const pixel = (value: number): string => String(Math.round(value * 10) / 10);

export function tickText(value: number): string {
  if (Math.abs(value) >= 10_000) return formatCount(value);
  // 1e-4, not 1.00e-4: ticks are round.
  if (value !== 0 && Math.abs(value) < 1e-3) return Number(value.toPrecision(6)).toExponential().replace(/-/g, "\u2212");
  return formatNumber(Number(value.toPrecision(6)), 3);
}

const decimalsOf = (tick: number): number => (Number(tick.toPrecision(6)).toFixed(8).replace(/0+$/, "").split(".")[1] ?? "").length;

/** Labels of an axis: as many digits as its ticks need, the same for all; powers of ten where that would be many. */
function tickTexts(ticks: readonly number[]): string[] {
  const digits = Math.max(0, ...ticks.map(decimalsOf));
  const largest = Math.max(...ticks.map(Math.abs));
  if (largest >= 10_000 || largest < 1e-3 || digits > 4) return ticks.map(tickText);
  return ticks.map((tick) =>
    tick.toLocaleString("en-US", { minimumFractionDigits: digits, maximumFractionDigits: digits }).replace("-", "\u2212"),
  );
}

function axes(x: Scale, y: Scale): Markup {
  const yTicks = y.kind === "log" ? logTicks(...y.domain) : linearTicks(...y.domain, 4);
  const yTexts = y.kind === "log" ? yTicks.map(tickText) : tickTexts(yTicks);
  const xTicks = linearTicks(...x.domain, 5, true);
  const rows = yTicks.map((tick, i) => {
    const at = pixel(position(y, tick));
    return html`<path class="grid" d="M${box.left} ${at}H${box.right}"/><text class="tick y" x="${box.left - 6}" y="${at}" dy="3.5">${yTexts[i]}</text>`;
  });
  const columns = xTicks.map((tick) => {
    const at = position(x, tick);
    const anchor = at > box.right - 12 ? "end" : "middle";
    return html`<text class="tick x" x="${pixel(anchor === "end" ? box.right : at)}" y="${box.bottom + 15}" text-anchor="${anchor}">${tickText(tick)}</text>`;
  });
  return join([...rows, html`<path class="axis" d="M${box.left} ${box.bottom}H${box.right}"/>`, ...columns]);
}

/** A path with gaps where values are not finite. */
function pathOf(steps: readonly number[], values: readonly number[], x: Scale, y: Scale): string {
  let path = "";
  let pen = "M";
  values.forEach((value, i) => {
    const height = position(y, value);
    if (!Number.isFinite(height)) {
      pen = "M";
      return;
    }
    path += `${pen}${pixel(position(x, steps[i]))} ${pixel(height)}`;
    pen = "L";
  });
  return path;
}

function drawLine({ look, steps, values, band }: Line, x: Scale, y: Scale): Markup {
  const parts: Markup[] = [];
  if (band) parts.push(...bandPaths(steps, band, x, y).map((path) => html`<path class="band" d="${path}"/>`));
  parts.push(html`<path class="line ${look}" d="${pathOf(steps, values, x, y)}"/>`);
  const finite = values.flatMap((value, i) => (Number.isFinite(position(y, value)) ? [i] : []));
  // A line of one point is invisible without its dot.
  if (look === "points" || finite.length === 1)
    parts.push(
      ...finite.map(
        (i) => html`<circle class="dot ${look}" cx="${pixel(position(x, steps[i]))}" cy="${pixel(position(y, values[i]))}" r="2.6"/>`,
      ),
    );
  return join(parts);
}

/** One closed outline for each stretch in which both edges are finite. */
function bandPaths(steps: readonly number[], band: NonNullable<Line["band"]>, x: Scale, y: Scale): string[] {
  const paths: string[] = [];
  let stretch: number[] = [];
  const close = (): void => {
    const point = (edge: readonly number[]) => (i: number) => `${pixel(position(x, steps[i]))} ${pixel(position(y, edge[i]))}`;
    if (stretch.length > 1) paths.push(`M${[...stretch.map(point(band.high)), ...stretch.toReversed().map(point(band.low))].join("L")}Z`);
    stretch = [];
  };
  steps.forEach((_, i) => {
    if (Number.isFinite(band.low[i]) && Number.isFinite(band.high[i])) stretch.push(i);
    else close();
  });
  close();
  return paths;
}

/** Marks on the axis where a value was not finite. */
const crosses = ({ notFinite }: ChartSpec, x: Scale): Markup =>
  join(
    notFinite.slice(0, 60).map((step) => {
      const at = position(x, step);
      return html`<path class="cross" d="M${pixel(at - 3)} ${box.bottom - 3}l6 6m0 -6l-6 6"/>`;
    }),
  );

const notFiniteNote = ({ notFinite }: ChartSpec): Markup | undefined =>
  notFinite.length === 0
    ? undefined
    : html`<p class="note">× ${notFinite.length.toLocaleString("en-US")} ${notFinite.length === 1 ? "value is" : "values are"} not finite (step ${notFinite.slice(0, 4).join(", ")}${notFinite.length > 4 ? ", …" : ""})</p>`;

const lastStep = ({ lines }: ChartSpec): string =>
  maximum(
    lines.flatMap(({ steps }) => steps.slice(-1)),
    0,
  ).toLocaleString("en-US");

function legendEntry(line: Line, index: number): Markup {
  const last = line.values[line.values.length - 1];
  return html`<li><i class="key ${line.look}"></i>${line.name} <b data-line="${index}">${last === undefined ? "" : formatNumber(last)}</b>${line.band ? html`<i class="key band"></i>${line.band.name}` : ""}</li>`;
}

function describe(line: Line, { unit }: ChartSpec): string {
  const finite = line.values.filter(Number.isFinite);
  if (finite.length === 0) return `${line.name} has no finite value`;
  return `${line.name} from ${formatNumber(finite[0])} to ${formatNumber(finite[finite.length - 1])} ${unit}`;
}
