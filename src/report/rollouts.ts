// The table of prompts, completions, rewards and advantages by step. The last step is written out; the script shows the others.
import { compact } from "./format.ts";
import { html, type Markup, visibleText } from "./html.ts";
import { asList, asNumber, asText, isRecord } from "./json.ts";
import type { RunRecord } from "./run-record.ts";
import { evenly } from "./series.ts";

/** One row; the values are in the order of the columns, null where there is none or it is not finite. */
export type Row = readonly [prompt: string, completion: string, values: readonly (number | null)[]];

export interface RolloutData {
  /** Of numbers: each reward by name, their sum, the advantage; only those that were recorded. */
  readonly columns: readonly string[];
  /** Decimals of each column, so that they stand below each other. */
  readonly decimals: readonly number[];
  readonly steps: readonly { readonly step: number; readonly rows: readonly Row[] }[];
}

export interface RolloutLimits {
  /** Characters of text that the page may spend on this table. */
  readonly characters: number;
}

const maxSteps = 60;
const maxRows = 64;
const maxText = 3000;
const maxColumns = 14;

interface Rollout {
  readonly prompt: string;
  readonly completion: string;
  readonly values: ReadonlyMap<string, number>;
}

/** Undefined when no sample holds completions with a reward or an advantage. */
export function rolloutData(run: RunRecord, { characters }: RolloutLimits): { data: RolloutData; numSteps: number } | undefined {
  const all = run.samples.flatMap(({ step, records }) => {
    const rollouts = (records ?? []).flatMap(parseRollout);
    return rollouts.length > 0 ? [{ step, rollouts }] : [];
  });
  if (all.length === 0) return undefined;
  const names = new Set(all.flatMap(({ rollouts }) => rollouts.flatMap(({ values }) => [...values.keys()])));
  const totals = ["reward", "advantage"].filter((name) => names.has(name));
  const columns = [...[...names].filter((name) => !totals.includes(name)).slice(0, maxColumns - totals.length), ...totals];
  // Fewer steps, evenly spaced, until the text fits; the last one always stays.
  for (let limit = maxSteps; ; limit = Math.floor(limit / 2)) {
    const steps = evenly(all.length, Math.max(1, limit)).map((i) => ({
      step: all[i].step,
      rows: all[i].rollouts.slice(0, maxRows).map((rollout) => rowOf(rollout, columns)),
    }));
    const rows = steps.flatMap((step) => step.rows);
    const size = rows.reduce((sum, [prompt, completion]) => sum + prompt.length + completion.length, 0);
    if (size > characters && limit > 1) continue;
    const decimals = columns.map((_, column) => decimalsOf(rows.map(([, , values]) => values[column])));
    return { data: { columns: columns.map(visibleText), decimals, steps }, numSteps: all.length };
  }
}

function parseRollout(record: Readonly<Record<string, unknown>>): Rollout[] {
  const { prompt, completion } = record;
  if (typeof completion !== "string") return [];
  const rewards = isRecord(record.rewards)
    ? Object.entries(record.rewards)
    : asList(record.rewards).map((value, i) => [`reward ${i + 1}`, value] as const);
  const totals = [
    ["reward", record.reward],
    ["advantage", record.advantage],
  ] as const;
  const numbers = [...rewards, ...totals].flatMap(([name, value]) => {
    const number = asNumber(value);
    return number === undefined ? [] : [[name, number] as const];
  });
  return numbers.length === 0 ? [] : [{ prompt: asText(prompt) ?? "", completion, values: new Map(numbers) }];
}

/** The space that joins a completion to its prompt is of no use where the two stand apart. */
const cut = (text: string): string =>
  visibleText(text.length > maxText ? `${text.slice(0, maxText)} … (${text.length.toLocaleString("en-US")} characters)` : text).replace(
    /^ /,
    "",
  );

const rowOf = ({ prompt, completion, values }: Rollout, columns: readonly string[]): Row => [
  cut(prompt),
  cut(completion),
  columns.map((name) => compact(values.get(name) ?? Number.NaN)),
];

/** None for whole numbers, two where those suffice, else three; more where all values are small. */
function decimalsOf(values: readonly (number | null)[]): number {
  const numbers = values.filter((value) => value !== null);
  const largest = numbers.reduce((size, value) => Math.max(size, Math.abs(value)), 0);
  if (numbers.every(Number.isInteger)) return 0;
  if (numbers.every((value) => Math.abs(value * 100 - Math.round(value * 100)) < 1e-9)) return 2;
  return largest < 0.1 ? 5 : 3;
}

/** @param id names the table's data among those of the page. */
export function rolloutSection(id: string, { columns, decimals, steps }: RolloutData, numSteps: number): Markup {
  const last = steps[steps.length - 1];
  const step = last.step.toLocaleString("en-US");
  const heads = columns.map(
    (name, i) =>
      html`<th scope="col" class="number" aria-sort="none"><button type="button" data-sort="${i}" disabled>${name}</button></th>`,
  );
  const thinned = steps.length < numSteps ? ` ${steps.length} of ${numSteps} recorded steps, evenly spaced.` : "";
  return html`<section class="rollouts" data-rollouts="${id}"><h3>Completions and rewards by step</h3>
<p class="note">Rewards and advantages are scores without unit. An advantage compares a completion with the others of its prompt.${thinned}</p>
<div class="controls" hidden><label>Step <input type="range" data-step min="0" max="${steps.length - 1}" value="${steps.length - 1}"></label> <output data-step-name>${step}</output>
<label>Filter <input type="search" data-filter placeholder="text in prompt or completion"></label> <label class="check"><input type="checkbox" data-full> full texts</label> <span class="count" data-count role="status"></span></div>
<p class="static">Step ${step}, the last one recorded.</p>
<table><thead><tr><th scope="col">prompt</th><th scope="col">completion</th>${heads}</tr></thead><tbody>${last.rows.map((row) => rowMarkup(row, columns, decimals))}</tbody></table></section>
`;
}

function rowMarkup([prompt, completion, values]: Row, columns: readonly string[], decimals: readonly number[]): Markup {
  const text = (value: number | null, i: number): string => (value === null ? "–" : value.toFixed(decimals[i]).replace("-", "\u2212"));
  const numbers = values.map((value, i) => html`<td class="number" data-label="${columns[i]}">${text(value, i)}</td>`);
  return html`<tr><td><div class="text">${prompt}</div></td><td><div class="text">${completion}</div></td>${numbers}</tr>`;
}
