// What the model writes, before and after: the first and the last sample of a run, or pairs that a recipe recorded.
import { html, type Markup } from "./html.ts";
import { asList, asText, isRecord } from "./json.ts";
import type { Artifact, RunRecord, Sample } from "./run-record.ts";
import { evenly } from "./series.ts";

interface Shown {
  readonly prompt: string;
  readonly text: string;
}

const maxCharacters = 6000;
const maxListed = 24;
const maxPairs = 12;

/** Undefined when the run recorded no texts. */
export function textsSection(run: RunRecord): Markup | undefined {
  const artifact = run.artifacts.findLast(({ name }) => name === "texts" || name === "before-after");
  const pairs = artifact ? pairsOf(artifact) : [];
  if (pairs.length > 0)
    return html`<section><h3>Before and after</h3>${pairs
      .slice(0, maxPairs)
      .map(
        ({ before, after }) => html`<div class="pair">${passage("before", before)}${passage("after", after)}</div>`,
      )}${pairs.length > maxPairs ? html`<p class="note">The first ${maxPairs} of ${pairs.length} pairs.</p>` : ""}</section>`;
  const samples = run.samples.flatMap((sample) => {
    const shown = shownOf(sample, run);
    return shown ? [{ step: sample.step, shown }] : [];
  });
  if (samples.length === 0) return undefined;
  const first = samples[0];
  const last = samples[samples.length - 1];
  if (samples.length === 1)
    return html`<section><h3>Sample</h3><div class="pair">${passage(`step ${number(first.step)}`, first.shown)}</div><p class="note">There is one sample only, so no comparison.</p></section>`;
  const after = matching(run, first, last);
  const between = evenly(samples.length, maxListed).map((i) => samples[i]);
  const others =
    samples.length > 2
      ? html`<details><summary>Samples by step (${between.length}${between.length < samples.length ? ` of ${samples.length}` : ""})</summary>${between.map(({ step, shown }) => passage(`step ${number(step)}`, shown))}</details>`
      : undefined;
  return html`<section><h3>Before and after</h3><div class="pair">${passage(`before: step ${number(first.step)}`, first.shown)}${passage(`after: step ${number(last.step)}`, after)}</div>${others}</section>`;
}

const number = (value: number): string => value.toLocaleString("en-US");

/** Of the last sample's records the one with the first sample's prompt, else its first one. */
function matching(run: RunRecord, first: { shown: Shown }, last: { step: number; shown: Shown }): Shown {
  const records = run.samples[run.samples.length - 1].records ?? [];
  const same = records.find((record) => asText(record.prompt) === first.shown.prompt);
  return same ? { prompt: first.shown.prompt, text: completionOf(same) ?? "" } : last.shown;
}

const completionOf = (record: Readonly<Record<string, unknown>>): string | undefined => asText(record.completion) ?? asText(record.text);

function shownOf({ text, records }: Sample, { config }: RunRecord): Shown | undefined {
  if (text !== undefined) {
    const prompt = asText(config?.samplePrompt) ?? "";
    return prompt !== "" && text.startsWith(prompt) ? { prompt, text: text.slice(prompt.length) } : { prompt: "", text };
  }
  const record = records?.[0];
  const completion = record && completionOf(record);
  return record && completion !== undefined ? { prompt: asText(record.prompt) ?? "", text: completion } : undefined;
}

function pairsOf({ data }: Artifact): { before: Shown; after: Shown }[] {
  return asList(data.pairs ?? data.items ?? data.texts)
    .filter(isRecord)
    .flatMap(({ prompt, before, after }) =>
      typeof before === "string" && typeof after === "string"
        ? [{ before: split(asText(prompt) ?? "", before), after: split(asText(prompt) ?? "", after) }]
        : [],
    );
}

/** Texts may be recorded with their prompt or without it. */
const split = (prompt: string, text: string): Shown => ({
  prompt,
  text: prompt !== "" && text.startsWith(prompt) ? text.slice(prompt.length) : text,
});

function passage(label: string, { prompt, text }: Shown): Markup {
  const cut = text.length > maxCharacters;
  return html`<figure class="passage"><figcaption>${label}</figcaption><blockquote>${prompt && html`<mark>${prompt}</mark>`}${cut ? text.slice(0, maxCharacters) : text}${cut ? html`<span class="note"> … (${number(text.length)} characters)</span>` : ""}</blockquote></figure>`;
}
